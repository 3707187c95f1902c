"""Writes what is left of checked data as a table, and beside it what was left out and why.

Nothing is deleted: the table names the pictures where they lie.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from unicross.data.items import ImageFile, Items
from unicross.data.load import NO_SPLITS
from unicross.data.records import Problem
from unicross.errors import DataError
from unicross.files import write_text
from unicross.hygiene.check import Checked

SUFFIXES = (".csv", ".jsonl")
Line = dict[str, str]


def require_writable(path: Path, items: Items) -> None:
    """Raise DataError where `write_clean` could not write these items to this path."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: what is left is written as a table: call it .csv or .jsonl")
    rows = items.rows[items.has_image]
    if len(rows) and not isinstance(items.pictures[int(rows[0])], ImageFile):
        raise DataError(
            f"{path}: a table can name only pictures that are files of their own, and these lie in larger "
            "files: unpack them first, or check without --write"
        )
    if path.suffix == ".csv" and not bool((items.has_image & items.has_text).all()):
        raise DataError(
            f"{path}: a CSV holds pairs only, and some items are pictures or texts alone: call it .jsonl"
        )


def write_clean(path: Path, checked: Checked, problems: Sequence[Problem]) -> tuple[int, int, Path]:
    """Write what is left to `path`, and to `NAME.removed.csv` beside it what is not, with the reasons.

    `problems` are of what could not even be read. Returns the captions or pictures that are left, those that
    are not, and the second path. Raises DataError as `require_writable`, and where nothing can be written.
    """
    items = checked.items
    require_writable(path, items)
    reasons: dict[tuple[int, int | None], str] = {}
    for finding in checked.findings:
        if finding.goes:
            reasons.setdefault((finding.item, finding.caption), f"{finding.kind}: {finding.what}")
    left: list[Line] = []
    removed: list[Line] = []
    for item in range(len(items)):
        start, count = int(items.first[item]), int(items.counts[item])
        row = int(items.rows[item])
        line = {"image_id": items.ids[item].as_py(), "split": checked.split[item]}
        line["image"] = _name(items.pictures[row].name, path) if row >= 0 else ""
        captions = range(start, start + count)
        for caption in captions or (None,):
            text = "" if caption is None else items.texts[caption].as_py()
            why = reasons.get((item, None)) or reasons.get((item, caption))
            (removed if why else left).append({**line, "caption": text, "why": why or ""})
    removed += [
        {"image_id": problem.where, "why": f"{problem.kind}: {problem.what}"}
        for problem in problems
        if problem.stops
    ]
    second = path.with_name(f"{path.stem}.removed.csv")
    columns = ["image_id", "image", "caption", *([] if set(checked.split) == {NO_SPLITS} else ["split"])]
    try:
        if path.suffix == ".csv":
            write_text(path, _csv(left, columns))
        else:
            full = ({name: line[name] for name in columns if line[name]} for line in left)
            write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in full))
        write_text(second, _csv(removed, [*columns, "why"]))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    return len(left), len(removed), second


def _csv(lines: Iterable[Line], columns: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _name(picture: str, table: Path) -> str:
    """How the table names a picture: below its folder by the relative path, else by the absolute one."""
    real, folder = os.path.abspath(picture), os.path.abspath(table.parent)
    below = os.path.commonpath([real, folder]) == folder
    return os.path.relpath(real, folder) if below else real
