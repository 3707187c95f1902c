"""What readers hand over: rows (one image, its captions or both) and the problems that they met.

A reader only says what its files say; `assembly.py` groups, checks and splits, the same for every format.
Readers of text files make `Row` objects; those of large sources make the columns, `Rows`, at once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unicross.data.items import Files, Pictures, strings
from unicross.errors import DataError

Kind = Literal[
    "missing image",
    "unreadable image",
    "empty caption",
    "duplicate id",
    "split overlap",
    "bad line",
    "damaged shard",
]

LISTS = pa.large_list(pa.large_string())
"""The type of a column of captions."""

IMAGE_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",  # the original archive is spelled this way
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
)
"""Folders beside a captions file in which its images are looked for."""

SHOWN_PER_KIND = 3


class Row(NamedTuple):
    """One statement of a captions file. Rows of one `image_id` make one item."""

    where: str
    """`file:line` for messages."""
    image_id: str
    image: Path | None
    """None for a text alone."""
    caption: str | None
    """None for an image alone; an empty text is a problem."""
    split: str | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of a source as columns. R: rows."""

    ids: Any
    """`image_id`, Arrow strings [R]. Rows of one id make one item."""
    captions: Any
    """Lists of Arrow strings, type LISTS [R]; null for an image alone, empty lists or texts are problems."""
    pictures: Pictures
    picture: NDArray[np.int64]
    """The image among `pictures` [R]; -1 for a text alone."""
    splits: tuple[str, ...]
    split: NDArray[np.int64]
    """The split among `splits` [R]; -1 for none."""
    where: Callable[[int], str]
    """The place of a row, for messages."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Rows of text files as columns."""
        paths: dict[Path | None, int] = {None: -1}
        splits: dict[str | None, int] = {None: -1}
        picture = [paths.setdefault(row.image, len(paths) - 1) for row in rows]
        split = [splits.setdefault(row.split, len(splits) - 1) for row in rows]
        said = np.array([row.caption is not None for row in rows], dtype=bool)
        texts = strings(row.caption for row in rows if row.caption is not None)
        return cls(
            strings(row.image_id for row in rows),
            as_lists(texts, said),
            Files(path for path in paths if path is not None),
            np.array(picture, dtype=np.int64),
            tuple(name for name in splits if name is not None),
            np.array(split, dtype=np.int64),
            lambda row: rows[row].where,
        )


def as_lists(texts: Any, said: NDArray[np.bool_]) -> Any:
    """A column of lists of one text where `said` [R], of nulls elsewhere. `texts`: [said.sum()]"""
    offsets = np.concatenate([[0], np.cumsum(said)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), texts, mask=pa.array(~said))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data: its kind, where it stands (`file:line` or the image) and what it is."""

    kind: Kind
    where: str
    what: str
    split: str | None = None
    """The split that it concerns; None where it concerns them all."""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.what}"


def problems_error(root: str, problems: Sequence[Problem]) -> DataError:
    """One error for all problems, and what to do."""
    advice = "Repair them, or go on without them: data.on_error=skip"
    return DataError(f"{root}: the data have problems: {describe(problems)}\n{advice}")


def describe(problems: Sequence[Problem]) -> str:
    """All problems counted by kind, then the first few of each kind, one a line."""
    counts = Counter(problem.kind for problem in problems)
    lines = [", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.most_common())]
    for kind, n in counts.most_common():
        shown = [problem for problem in problems if problem.kind == kind][:SHOWN_PER_KIND]
        lines += [f"  {problem}" for problem in shown]
        if n > len(shown):
            lines.append(f"  ... and {n - len(shown)} more of this kind")
    return "\n".join(lines)


def image_folders(folder: Path) -> list[Path]:
    """Where the images of a captions file in `folder` may lie; the folder itself comes last."""
    return [*(folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder]


def find_image(name: str, folders: Iterable[Path]) -> Path:
    """The first existing file called `name` (a relative or absolute path); else the first guess."""
    guesses = [folder / name for folder in folders]
    return next((path for path in guesses if os.path.isfile(path)), guesses[0])


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, without line ends. Raises DataError."""
    return read_text(path).removesuffix("\n").split("\n")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
