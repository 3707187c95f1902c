"""What a format hands over: records (one image, its captions or both) and the problems that it met.

A format only says what its files say; `assembly.py` groups, checks and splits, the same for every format.
Formats with a line a caption make `Record` objects; those of large sources make the columns, `Records`, at
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from unicross.batches import Indices
from unicross.data.image_source import Files, Pictures
from unicross.data.items import PLAIN_KIND, CaptionKind, Mask, strings
from unicross.errors import DataError
from unicross.wording import counted

ProblemKind = Literal[
    "missing image",
    "unreadable image",
    "empty caption",
    "duplicate id",
    "split overlap",
    "bad line",
    "damaged shard",
    "not read",
]
"""What is "not read" is said and stops nothing; all others stop a run, or are skipped."""

LISTS = pa.large_list(pa.large_string())
"""The type of a column of captions."""

KINDS = pa.large_list(pa.int32())
"""The type of the column beside it: which kind each caption is of."""

SHOWN_PER_KIND = 3
"""Problems of a kind that a message quotes; the others are counted."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a user says of data whose names do not say it. None: by the usual names."""

    images: tuple[str, ...] | None = None
    """Columns; of several, each holds images of its own."""
    captions: tuple[str, ...] | None = None
    """Columns; none at all reads pictures without words."""
    split: str | None = None
    item: str | None = None
    language: str | None = None
    encoding: str | None = None


BY_NAME = ReadOptions()
SAID_AS = {
    "images": "image",
    "captions": "caption",
    "split": "split_column",
    "item": "item",
    "language": "language",
    "encoding": "encoding",
}
"""The fields of `ReadOptions`, and what they are below `data.` in a recipe."""


class Record(NamedTuple):
    """One statement of a captions file. Records of one `item` make one item."""

    where: str
    """`file:line` for messages."""
    item: str
    """The id of the item."""
    image: Path | None
    """None for a text alone."""
    caption: str | None
    """None for an image alone; an empty text is a problem."""
    split: str | None = None
    kind: CaptionKind = PLAIN_KIND


@dataclass(frozen=True)
class Records:
    """The records of a source as columns. R: records."""

    ids: Any
    """The id of the item, Arrow strings [R]. Records of one id make one item."""
    captions: Any
    """Lists of Arrow strings, type LISTS [R]; null for an image alone, empty lists or texts are problems."""
    pictures: Pictures
    picture: Indices
    """The image among `pictures` [R]; -1 for a text alone."""
    splits: tuple[str, ...]
    split: Indices
    """The split among `splits` [R]; -1 for none."""
    where: Callable[[int], str]
    """The place of a record, for messages."""
    read_from: frozenset[str] = frozenset()
    """The files that it was all read from, but for pictures."""
    several: bool = False
    """Whether an item may have several images; where not, a second one is a problem."""
    kinds: tuple[CaptionKind, ...] = ()
    """The kinds of captions that there are; none where nothing is known of them."""
    kind: Any = None
    """Which of `kinds` each caption is: lists beside `captions`, type KINDS [R]; None without kinds."""

    @classmethod
    def of(
        cls, records: Sequence[Record], read_from: Iterable[Path] = (), *, several: bool = False
    ) -> Records:
        """Records of text files as columns."""
        # The numbers are given in the order of first sight; None, which is there first, has -1.
        paths: dict[Path | None, int] = {None: -1}
        splits: dict[str | None, int] = {None: -1}
        picture = [paths.setdefault(record.image, len(paths) - 1) for record in records]
        split = [splits.setdefault(record.split, len(splits) - 1) for record in records]
        has_caption = np.array([record.caption is not None for record in records], dtype=bool)
        texts = strings(record.caption for record in records if record.caption is not None)
        kinds: dict[CaptionKind, int] = {}
        kind = [kinds.setdefault(record.kind, len(kinds)) for record in records if record.caption is not None]
        known = any(kind != PLAIN_KIND for kind in kinds)
        return cls(
            strings(record.item for record in records),
            as_lists(texts, has_caption),
            Files(path for path in paths if path is not None),
            np.array(picture, dtype=np.int64),
            tuple(name for name in splits if name is not None),
            np.array(split, dtype=np.int64),
            lambda row: records[row].where,
            frozenset(map(str, read_from)),
            several,
            tuple(kinds) if known else (),
            as_lists(pa.array(kind, pa.int32()), has_caption) if known else None,
        )


def as_lists(texts: Any, has_text: Mask) -> Any:
    """A column of lists of one value where `has_text` [R], of nulls elsewhere. `texts`: [has_text.sum()]"""
    offsets = np.concatenate([[0], np.cumsum(has_text)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), texts, mask=pa.array(~has_text))


def number_ids(ids: Any) -> Indices:
    """A number for each id [R], equal for equal ids, in the order in which they are first seen."""
    return np.asarray(ids.dictionary_encode().indices, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data: its kind, where it stands (`file:line` or the image) and what it is."""

    kind: ProblemKind
    where: str
    what: str
    split: str | None = None
    """The split that it concerns; None where it concerns them all."""

    @property
    def stops(self) -> bool:
        """Whether a run stops for it, unless it is to be skipped."""
        return self.kind != "not read"

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.what}"


def problems_error(root: str, problems: Sequence[Problem]) -> DataError:
    """One error for all problems, and what to do."""
    advice = "Repair them, or go on without them: data.on_error=skip"
    return DataError(f"{root}: the data have problems: {describe(problems)}\n{advice}")


def describe(problems: Sequence[Problem]) -> str:
    """All problems counted by kind, then the first few of each kind, one a line."""
    counts = Counter(problem.kind for problem in problems)
    lines = [", ".join(counted(n, kind) for kind, n in counts.most_common())]
    for kind, n in counts.most_common():
        shown = [problem for problem in problems if problem.kind == kind][:SHOWN_PER_KIND]
        lines += [f"  {problem}" for problem in shown]
        if n > len(shown):
            lines.append(f"  ... and {n - len(shown)} more of this kind")
    return "\n".join(lines)
