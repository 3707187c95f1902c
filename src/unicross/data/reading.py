"""From a path to checked items: which format it is, grouping, splits and problems, the same for every format.

A reader (`flickr.py`, `karpathy.py`, `table.py`, `folder.py`) turns files into rows; here rows become items.
To add a format: write its reader, and name it in `Format`, `_candidates` and `_read`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unicross.data import flickr, folder, karpathy, table
from unicross.data.images import check_header
from unicross.data.items import ImageFile, Item
from unicross.data.rows import Problem, Row, describe, problems_error
from unicross.errors import DataError

Format = Literal["flickr", "karpathy", "table", "folder"]

SAME_SPLIT = frozenset({"val", "dev", "valid", "validation"})
"""Names of the same split: one may be asked for by another."""

CHECK_CHUNK = 64
"""Images whose headers one task of a thread checks: one task an image costs more than the check."""

LOOKED_FOR = """\
  flickr:   Flickr8k.token.txt or results_20130124.token
  karpathy: dataset*.json
  table:    one .csv, .tsv or .jsonl file, or a captions.txt with a header
  folder:   images, and .txt files of the same names"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Items in the order of their files, and what was left out (only with on_error="skip")."""

    items: list[Item]
    problems: list[Problem]


def load_items(
    root: Path | str,
    split: str | None = None,
    *,
    format: Format | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> Loaded:
    """Read and check the items of one split, of several joined by `+` (`train+restval`), or of all (None).

    `root` is a folder or a captions file; `format` None detects what it is. Raises DataError where nothing
    can be read, for a split that does not exist, and for problems unless `on_error` is "skip".
    """
    root = Path(root)
    rows, problems = _read(*_detect(root, format))
    wanted = _wanted(split, rows, root)
    if wanted is not None:
        problems = [problem for problem in problems if problem.split is None or problem.split in wanted]
    items, found = _assemble(rows, wanted)
    problems += found
    if problems and on_error == "raise":
        raise problems_error(str(root), problems)
    if not items:
        reason = f"all of it has problems: {describe(problems)}" if problems else "the files hold none"
        raise DataError(f"{root}: no items{f' in split {split!r}' if split else ''}: {reason}")
    return Loaded(items, problems)


def set_aside(items: Sequence[Item], amount: int | float, seed: int) -> tuple[list[Item], list[Item]]:
    """Split items into (the rest, those set aside), both in their order.

    `amount` is a count, or a share of the items where it is below 1. Which items go depends on their ids
    and the seed alone, not on their order. Raises DataError where nothing would be set aside or left.
    """
    count = round(amount * len(items)) if amount < 1 else int(amount)
    if not 0 < count < len(items):
        raise DataError(
            f"cannot set aside {amount} of {len(items)} items: give a smaller count, or a share below 1"
        )

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{seed}:{items[index].image_id}".encode()).digest()

    chosen = set(sorted(range(len(items)), key=rank)[:count])
    rest = [item for index, item in enumerate(items) if index not in chosen]
    return rest, [items[index] for index in sorted(chosen)]


def _detect(root: Path, format: Format | None) -> tuple[Format, Path]:
    """The format and the file (for `folder`, the folder) to read."""
    if not root.exists():
        raise DataError(f"{root}: no such file or folder: give an existing one as data.root")
    if format is not None and root.is_dir() == (format == "folder"):
        return format, root  # whatever its name
    candidates = [(kind, path) for kind, path in _candidates(root) if format in (None, kind)]
    if not candidates:
        raise DataError(
            f"{root}: no data{f' of format {format!r}' if format else ''} found. Looked for\n{LOOKED_FOR}"
        )
    if len(candidates) > 1:
        found = "\n".join(f"  {kind}: {path}" for kind, path in candidates)
        raise DataError(
            f"{root}: several captions files:\n{found}\nGive one of them as data.root, or say data.format"
        )
    return candidates[0]


def _candidates(root: Path) -> list[tuple[Format, Path]]:
    tokens = flickr.token_file(root)
    found: list[tuple[Format, Path]] = [("flickr", tokens)] if tokens else []
    found += [("karpathy", path) for path in karpathy.json_files(root)]
    found += [("table", path) for path in table.table_files(root)]
    if not found and root.is_dir() and folder.has_files(root):
        found.append(("folder", root))
    return found


def _read(format: Format, path: Path) -> tuple[list[Row], list[Problem]]:
    match format:
        case "flickr":
            return flickr.read(path)
        case "karpathy":
            return karpathy.read(path)
        case "table":
            return table.read(path)
        case "folder":
            return folder.read(path)


def _wanted(split: str | None, rows: Iterable[Row], root: Path) -> set[str] | None:
    """Names of the wanted splits as the data spell them; None for all rows, also of data without splits."""
    if split is None:
        return None
    existing = {row.split for row in rows if row.split is not None}
    if not existing and split == "train":
        return None  # data without splits are all for training
    wanted = set()
    for name in split.split("+"):
        alike = existing & SAME_SPLIT if name in SAME_SPLIT else set()
        if name in existing:
            wanted.add(name)
        elif len(alike) == 1:
            wanted |= alike
        else:
            have = f"splits here: {', '.join(sorted(existing))}" if existing else "these data have no splits"
            raise DataError(
                f"{root}: no split {name!r}: {have}. Name one as data.split.train or data.split.val, "
                "or leave it null for all items; data.split.val=0.1 sets a share of train aside"
            )
    return wanted


def _assemble(rows: Sequence[Row], wanted: set[str] | None) -> tuple[list[Item], list[Problem]]:
    """Group the wanted rows into items and check them."""
    problems: list[Problem] = []
    overlapping = _overlaps(rows, wanted, problems)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if (wanted is None or row.split in wanted) and row.image_id not in overlapping:
            groups.setdefault(row.image_id, []).append(row)
    images = {i: next((r.image for r in group if r.image), None) for i, group in groups.items()}
    bad_images = _bad_images([path for path in images.values() if path is not None])
    items = []
    for image_id, group in groups.items():
        image = images[image_id]
        captions = _captions(group, image, problems)
        if image is not None and image in bad_images:
            missing = not os.path.isfile(image)
            kind: Literal["missing image", "unreadable image"] = (
                "missing image" if missing else "unreadable image"
            )
            problems.append(Problem(kind, group[0].where, f"{image}: {bad_images[image]}"))
        elif captions or group[0].caption is None:
            items.append(Item(image_id, ImageFile(image) if image else None, tuple(captions)))
    return items, problems


def _overlaps(rows: Iterable[Row], wanted: set[str] | None, problems: list[Problem]) -> set[str]:
    """Ids that are in more than one split, one of them wanted; each is a problem."""
    splits: dict[str, set[str]] = {}
    places: dict[str, str] = {}
    for row in rows:
        if row.split is not None:
            splits.setdefault(row.image_id, set()).add(row.split)
            places.setdefault(row.image_id, row.where)
    overlapping = {i for i, names in splits.items() if len(names) > 1 and (wanted is None or names & wanted)}
    for image_id in splits:
        if image_id in overlapping:
            what = f"{image_id} is in {' and '.join(sorted(splits[image_id]))}"
            problems.append(Problem("split overlap", places[image_id], what))
    return overlapping


def _captions(group: Sequence[Row], image: Path | None, problems: list[Problem]) -> list[str]:
    captions = []
    for row in group:
        if row.image is not None and row.image != image:
            what = f"{row.image_id} is {row.image} here and {image} in {group[0].where}"
            problems.append(Problem("duplicate id", row.where, what))
        elif row.caption is not None and row.caption.strip():
            captions.append(row.caption.strip())
        elif row.caption is not None:
            problems.append(Problem("empty caption", row.where, f"of {row.image_id}"))
    return captions


def _bad_images(paths: Sequence[Path]) -> dict[Path, str]:
    """What is wrong with the images whose headers cannot be read; pixels are looked at when decoding."""
    chunks = [paths[start : start + CHECK_CHUNK] for start in range(0, len(paths), CHECK_CHUNK)]

    def check(chunk: Sequence[Path]) -> list[tuple[Path, str]]:
        return [(path, why) for path in chunk if (why := check_header(path))]

    with ThreadPoolExecutor(8) as pool:  # threads wait for the disk together; the parsing itself is short
        return dict(bad for found in pool.map(check, chunks) for bad in found)
