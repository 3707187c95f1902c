"""From a path to checked items: which format it is, what it says, and which splits there are.

A format (`formats/`) turns files into records; `assembly.py` makes items of them, the same for every format.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unicross.config import DataConfig
from unicross.data.assembly import assemble
from unicross.data.formats import FORMATS, check_takes, detect
from unicross.data.formats.json_file import json_files, load_json
from unicross.data.items import Item, Items
from unicross.data.places import local_copy
from unicross.data.records import BY_NAME, Problem, ReadOptions, Records, describe, problems_error
from unicross.data.walk import walk
from unicross.errors import DataError
from unicross.wording import counted

SAME_SPLIT = frozenset({"val", "dev", "valid", "validation"})
"""Names of the same split: one may be asked for by another."""

NO_SPLITS = "(no splits)"

COMPANIONS = re.compile(r"(?i)(readme|licen[sc]e|citation|thumbs\.db|desktop\.ini)|.*\.md$")
"""Names of files that hold no data, wherever they lie."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Items in the order of their files, and what was left out (only with on_error="skip")."""

    items: Items
    problems: list[Problem]


def load_items(
    root: Path | str,
    split: str | None = None,
    *,
    format: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    options: ReadOptions = BY_NAME,
) -> Loaded:
    """Read and check the items of one split, of several joined by `+` (`train+restval`), or of all (None).

    `root` is a folder or a captions file, or an address (`places.py`); `format` is a name in `FORMATS`, or
    None to detect it; `options` says what the names of columns do not. Raises DataError where nothing can
    be read, for a format or a split that does not exist, and for problems unless `on_error` is "skip".
    """
    return open_source(root, format, options).items(split, on_error)


@dataclass(frozen=True)
class Source:
    """A source that was read: what it says, before it is grouped and checked."""

    root: Path
    format: str
    """A name in `FORMATS`."""
    path: Path
    """What of `root` was read."""
    records: Records
    problems: list[Problem]

    def items(self, split: str | None, on_error: Literal["raise", "skip"]) -> Loaded:
        """As load_items."""
        asked = _asked_splits(split, self.records.splits, self.root)
        problems = [p for p in self.problems if asked is None or p.split is None or p.split in asked]
        items, of_items = assemble(self.records, asked)
        problems += of_items
        pa.default_memory_pool().release_unused()  # columns in between took several times what is kept
        stopping = [problem for problem in problems if problem.stops]
        if stopping and on_error == "raise":
            raise problems_error(str(self.root), stopping)
        if not items:
            reason = f"all of it has problems: {describe(stopping)}" if stopping else "the files hold none"
            unread = "".join(f"\nnot read: {p.where}: {p.what}" for p in problems if not p.stops)
            in_split = f" in split {split!r}" if split else ""
            raise DataError(f"{self.root}: no items{in_split}: {reason}{unread}")
        return Loaded(items, problems)


def open_source(root: Path | str, format: str | None = None, options: ReadOptions = BY_NAME) -> Source:
    """Read what a source says. Raises DataError where nothing can be read."""
    root = local_copy(root)
    name, path = detect(root, format)
    check_takes(root, name, options)
    records, problems = FORMATS[name].read(path, options)
    if root.is_dir():
        problems += _unread_files(root, records)
    return Source(root, name, path, records, problems)


def _unread_files(root: Path, records: Records) -> list[Problem]:
    """What lies in a folder and was not read: one problem that counts it by suffix; none where all was."""
    rows = records.picture[records.picture >= 0]
    used = {os.path.normpath(path) for path in (*records.read_from, *records.pictures.files(rows))}
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for entry in walk(root, lambda *_: None):
        if os.path.normpath(entry.path) not in used and not COMPANIONS.match(entry.name):
            suffix = Path(entry.name).suffix.lower() or "without a suffix"
            counts[suffix] += 1
            examples.setdefault(suffix, os.path.relpath(entry.path, root))
    if not counts:
        return []
    broken = [path for path in json_files(root) if os.path.normpath(path) not in used]
    reasons = [Problem("not read", str(path), why) for path in broken if (why := _why_no_json(path))]
    listed = ", ".join(f"{count} {suffix} ({examples[suffix]})" for suffix, count in counts.most_common(12))
    more = f" and {len(counts) - 12} more kinds" if len(counts) > 12 else ""
    return [
        *reasons,
        Problem("not read", str(root), f"{counted(counts.total(), 'file')}: {listed}{more}"),
    ]


def _why_no_json(path: Path) -> str | None:
    """Why a JSON file, which may have been meant to hold the captions, cannot be read; None where it can."""
    try:
        load_json(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}:")
    return None


def read_options(data: DataConfig) -> ReadOptions:
    """What a recipe says of its data's columns and encoding."""
    images, captions = ((names,) if isinstance(names, str) else names for names in (data.image, data.caption))
    return ReadOptions(images, captions, data.split_column, data.item, data.language, data.encoding)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source holds, before anything is trained on it."""

    format: str
    """A name in `FORMATS`."""
    path: Path
    splits: dict[str, Items]
    """By name; where the data have none, all of them under "(no splits)". What has no split is in none."""
    problems: list[Problem]


def survey(root: Path | str, *, format: str | None = None, options: ReadOptions = BY_NAME) -> Survey:
    """Read and check all splits. Raises DataError where nothing can be read."""
    source = open_source(root, format, options)
    records, problems = source.records, list(source.problems)
    splits = {}
    for split in records.splits or (NO_SPLITS,):
        splits[split], of_items = assemble(records, {split} if records.splits else None)
        problems += of_items
    return Survey(source.format, source.path, splits, list(dict.fromkeys(problems)))


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
            f"cannot set aside {amount} of {counted(pairs, 'pair')}: give a smaller count, or a share below 1"
        )

    digests = (hashlib.sha256(f"{seed}:{id.as_py()}".encode()).digest()[:8] for id in items.ids)
    ranks = np.frombuffer(b"".join(digests), ">u8")
    order = np.argsort(ranks, kind="stable")
    aside = np.zeros(len(items), dtype=bool)
    aside[order[paired[order]][:count]] = True
    return items.select(np.flatnonzero(~aside)), items.select(np.flatnonzero(aside))


def _asked_splits(split: str | None, splits: Collection[str], root: Path) -> set[str] | None:
    """Names of the asked splits as the data spell them; None for all records, also of data without splits."""
    if split is None:
        return None
    existing = set(splits)
    if not existing and split == "train":
        return None  # data without splits are all for training
    asked = set()
    for name in split.split("+"):
        alike = existing & SAME_SPLIT if name in SAME_SPLIT else set()
        if name in existing:
            asked.add(name)
        elif len(alike) == 1:
            asked |= alike
        else:
            have = f"splits here: {', '.join(sorted(existing))}" if existing else "these data have no splits"
            raise DataError(
                f"{root}: no split {name!r}: {have}. Name one as data.split.train or data.split.val, "
                "or leave it null for all items; data.split.val=0.1 sets a share of train aside"
            )
    return asked


def read_splits(data: DataConfig) -> tuple[Items, Items, list[Problem]]:
    """Training items, validation items (perhaps none) and what was skipped. Raises DataError."""
    val = data.split.val
    source = open_source(data.root, data.format, read_options(data))
    train = source.items(data.split.train, data.on_error)
    if isinstance(val, str):
        loaded = source.items(val, data.on_error)
        problems = list(dict.fromkeys(train.problems + loaded.problems))  # some belong to no split
        return train.items, loaded.items, problems
    if val is None:
        return train.items, train.items[:0], train.problems
    rest, aside = set_aside(train.items, val, seed=0)  # the same for all seeds, so that runs compare
    return rest, aside, train.problems


def read_validation(data: DataConfig) -> Items:
    """The validation items alone. Raises DataError, also where the recipe names none."""
    val = data.split.val
    if isinstance(val, str):
        return open_source(data.root, data.format, read_options(data)).items(val, data.on_error).items
    items = read_splits(data)[1]
    if not items:
        raise DataError("the recipe has no validation split: name one, for instance data.split.val=test")
    return items


def read_untrained(data: DataConfig) -> Items:
    """The items that an untrained model is evaluated on: those of its validation split, or all. Raises
    DataError."""
    val = data.split.val
    if val is None:
        source = open_source(data.root, data.format, read_options(data))
        return source.items(data.split.train, data.on_error).items
    return read_validation(data)


def seen_in_training(trained: DataConfig, data: DataConfig, items: Items) -> int:
    """How many of the items, the validation split of `data`, are trained on by `trained`; 0 for other data.

    Splits of other names share nothing (reading checks that), so their training items are not read.
    """
    val, train = data.split.val, trained.split.train
    apart = isinstance(val, str) and train is not None and not {*val.split("+")} & {*train.split("+")}
    if apart or Path(trained.root).resolve() != Path(data.root).resolve():
        return 0
    return int(pc.sum(pc.is_in(items.ids, value_set=read_splits(trained)[0].ids)).as_py() or 0)
