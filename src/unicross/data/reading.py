"""From a path to checked items: which format it is, which reader reads it, and which splits there are.

A reader turns files into rows; `assembly.py` makes items of them, the same for every format.
To add a format: write its reader, and name it in `Format` (of `config.py`), `_candidates` and `_read`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from unicross.config import Format
from unicross.data import columns, flickr, folder, karpathy, table, tar
from unicross.data.assembly import assemble
from unicross.data.items import Item, Items
from unicross.data.rows import Problem, Row, Rows, describe, problems_error
from unicross.errors import DataError

SAME_SPLIT = frozenset({"val", "dev", "valid", "validation"})
"""Names of the same split: one may be asked for by another."""

NO_SPLITS = "(no splits)"

LOOKED_FOR = """\
  flickr:   Flickr8k.token.txt or results_20130124.token
  karpathy: dataset*.json
  table:    one .csv, .tsv or .jsonl file, or a captions.txt with a header
  tar:      .tar shards of samples KEY.jpg, KEY.txt, KEY.json
  parquet:  .parquet files with an image and a caption column
  arrow:    a folder that Hugging Face datasets saved (save_to_disk)
  folder:   images, and .txt files of the same names"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Items in the order of their files, and what was left out (only with on_error="skip")."""

    items: Items
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
    wanted = _wanted(split, rows.splits, root)
    if wanted is not None:
        problems = [problem for problem in problems if problem.split is None or problem.split in wanted]
    items, found = assemble(rows, wanted)
    problems += found
    del rows
    pa.default_memory_pool().release_unused()  # columns in between took several times what is kept
    if problems and on_error == "raise":
        raise problems_error(str(root), problems)
    if not items:
        reason = f"all of it has problems: {describe(problems)}" if problems else "the files hold none"
        raise DataError(f"{root}: no items{f' in split {split!r}' if split else ''}: {reason}")
    return Loaded(items, problems)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source holds, before anything is trained on it."""

    format: Format
    path: Path
    splits: dict[str, Items]
    """By name; where the data have none, all of them under "(no splits)". What has no split is in none."""
    problems: list[Problem]


def survey(root: Path | str, *, format: Format | None = None) -> Survey:
    """Read and check all splits. Raises DataError where nothing can be read."""
    kind, path = _detect(Path(root), format)
    rows, problems = _read(kind, path)
    splits = {}
    for name in rows.splits or (NO_SPLITS,):
        splits[name], found = assemble(rows, {name} if rows.splits else None)
        problems += found
    return Survey(kind, path, splits, list(dict.fromkeys(problems)))


def set_aside(items: Sequence[Item], amount: int | float, seed: int) -> tuple[Items, Items]:
    """Split items into (the rest, pairs set aside), both in their order; what is alone stays in the rest.

    `amount` is a count, or a share of the pairs where it is below 1. Which pairs go depends on their ids
    and the seed alone, not on their order. Raises DataError where nothing would be set aside or left.
    """
    items = Items.of(items)
    paired = items.has_image & items.has_text
    pairs = int(paired.sum())
    count = round(amount * pairs) if amount < 1 else int(amount)
    if not 0 < count < pairs:
        raise DataError(
            f"cannot set aside {amount} of {pairs} pairs: give a smaller count, or a share below 1"
        )

    digests = (hashlib.sha256(f"{seed}:{image_id.as_py()}".encode()).digest()[:8] for image_id in items.ids)
    ranks = np.frombuffer(b"".join(digests), ">u8")
    order = np.argsort(ranks, kind="stable")
    aside = np.zeros(len(items), dtype=bool)
    aside[order[paired[order]][:count]] = True
    return items.select(np.flatnonzero(~aside)), items.select(np.flatnonzero(aside))


def _detect(root: Path, format: Format | None) -> tuple[Format, Path]:
    """The format and the file (for `folder`, the folder) to read."""
    if not root.exists():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"{root}: no such file or folder{where}: give an existing one as data.root")
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
    if columns.is_saved(root):
        return [("arrow", root)]
    tokens = flickr.token_file(root)
    found: list[tuple[Format, Path]] = [("flickr", tokens)] if tokens else []
    found += [("karpathy", path) for path in karpathy.json_files(root)]
    found += [("table", path) for path in table.table_files(root)]
    if tar.tar_files(root):
        found.append(("tar", root))
    elif columns.parquet_files(root):  # those beside shards are the downloader's notes
        found.append(("parquet", root))
    if not found and root.is_dir() and folder.has_files(root):
        found.append(("folder", root))
    return found


def _read(format: Format, path: Path) -> tuple[Rows, list[Problem]]:
    rows: list[Row]
    match format:
        case "flickr":
            rows, problems = flickr.read(path)
        case "karpathy":
            rows, problems = karpathy.read(path)
        case "table":
            rows, problems = table.read(path)
        case "folder":
            rows, problems = folder.read(path)
        case "tar":
            return tar.read(path)
        case "parquet":
            return columns.read_parquet(path)
        case "arrow":
            return columns.read_saved(path)
    return Rows.of(rows), problems


def _wanted(split: str | None, splits: Collection[str], root: Path) -> set[str] | None:
    """Names of the wanted splits as the data spell them; None for all rows, also of data without splits."""
    if split is None:
        return None
    existing = set(splits)
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
