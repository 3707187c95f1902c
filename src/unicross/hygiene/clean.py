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
from typing import Any

from unicross.data.image_source import ImageFile
from unicross.data.items import PLAIN_KIND, Items
from unicross.data.load import NO_SPLITS
from unicross.data.records import Problem
from unicross.errors import DataError
from unicross.files import write_text
from unicross.hygiene.check import Checked

SUFFIXES = (".csv", ".jsonl")
Line = dict[str, Any]


def require_writable(path: Path, items: Items) -> None:
    """Raise DataError where `write_clean` could not write these items to this path."""
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: what is left is written as a table: call it .csv or .jsonl")
    if len(items.images) and not isinstance(items.image(0), ImageFile):
        raise DataError(
            f"{path}: a table can name only pictures that are files of their own, and these lie in larger "
            "files: unpack them first, or check without --write"
        )
    if path.suffix == ".csv" and not bool((items.has_image & items.has_text).all()):
        raise DataError(
            f"{path}: a CSV holds pairs only, and some items are pictures or texts alone: call it .jsonl"
        )
    if path.suffix == ".csv" and bool((items.image_counts > 1).any()):
        raise DataError(f"{path}: a CSV holds one picture a row, and some items have several: call it .jsonl")


def write_clean(path: Path, checked: Checked, problems: Sequence[Problem]) -> tuple[int, int, Path]:
    """Write what is left to `path`, and to `NAME.removed.csv` beside it what is not, with the reasons.

    Captions keep their language (read again with `data.language=language`), not their field. `problems` are
    of what could not even be read. Returns the captions or pictures that are left, those that are not, and
    the second path. Raises DataError as `require_writable`, and where nothing can be written.
    """
    items = checked.items
    require_writable(path, items)
    of_images: dict[int, str] = {}
    of_captions: dict[int, str] = {}
    for finding in checked.findings:
        if finding.goes:
            reason = f"{finding.kind}: {finding.what}"
            if finding.caption is not None:
                of_captions.setdefault(finding.caption, reason)
            elif finding.image is not None:
                of_images.setdefault(finding.image, reason)
    left: list[Line] = []
    removed: list[Line] = []
    for item in range(len(items)):
        line, gone, removed_images = _item_line(checked, item, of_images, path)
        removed += removed_images
        start = int(items.first[item])
        for caption in range(start, start + int(items.counts[item])) or (None,):
            why = gone or (None if caption is None else of_captions.get(caption))
            (removed if why else left).append({**line, **_caption(items, caption), "why": why or ""})
    removed += [
        {"item_id": problem.where, "why": f"{problem.kind}: {problem.what}"}
        for problem in problems
        if problem.stops
    ]
    second = path.with_name(f"{path.stem}.removed.csv")
    columns = ["item_id", "image", "caption"]
    columns += [] if items.languages is None else ["language"]
    columns += [] if set(checked.split) == {NO_SPLITS} else ["split"]
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


def _item_line(
    checked: Checked, item: int, of_images: dict[int, str], path: Path
) -> tuple[Line, str | None, list[Line]]:
    """What each line of an item says of it, why it goes as a whole, and lines of images that go alone."""
    items, first = checked.items, int(checked.items.first_image[item])
    images = range(first, first + int(items.image_counts[item]))
    kept = [image for image in images if image not in of_images]
    names = [_name(items.image(image).name, path) for image in kept or images]
    line: Line = {"item_id": items.ids[item].as_py(), "split": checked.split[item]}
    line["image"] = names if len(images) > 1 else "".join(names)
    if images and not kept:
        return line, of_images[images[0]], []
    gone = [image for image in images if image in of_images]
    return (
        line,
        None,
        [{**line, "image": items.image(image).name, "why": of_images[image]} for image in gone],
    )


def _caption(items: Items, caption: int | None) -> Line:
    if caption is None:
        return {"caption": ""}
    kind = PLAIN_KIND if items.kind is None else items.kinds[int(items.kind[caption])]
    return {"caption": items.texts[caption].as_py(), "language": kind.language or ""}


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
