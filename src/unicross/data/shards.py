"""What sources of many pictures in few files share: splits by name, rows from parts, one cell of them.

A part is what one file says. Its pictures stay where they are until they are read. Without an `image_id`
column the id of a row is its file and its place in it.
R: rows of all parts together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unicross.data.assembly import number_ids
from unicross.data.folder import SPLIT_FOLDERS
from unicross.data.items import Pictures
from unicross.data.rows import LISTS, Rows

Mask = NDArray[np.bool_]


class Places:
    """The rows of some files [R], one file after another; those that have pictures say how to `read` them."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]) -> None:
        self.paths = paths
        self._bounds = np.cumsum([0, *counts])

    def __getitem__(self, row: int) -> Cell:
        return Cell(self, row)

    def files(self, rows: NDArray[np.int64]) -> Iterable[str]:
        """The files that the pictures of these rows are read from, each once."""
        numbers = np.unique(np.searchsorted(self._bounds, rows, side="right")) - 1
        return (str(self.paths[number]) for number in numbers)

    def locate(self, row: int) -> tuple[int, int]:
        """The number of the file and the row in it."""
        number = int(np.searchsorted(self._bounds, row, side="right")) - 1
        return number, row - int(self._bounds[number])

    def name(self, row: int) -> str:
        """The file and the place in it, for messages."""
        number, place = self.locate(row)
        return f"{self.paths[number]}: row {place}"

    def read(self, row: int) -> bytes:
        """The encoded bytes of the picture of a row. Raises OSError."""
        raise NotImplementedError

    def stamp(self, row: int) -> str:
        """As of an ImageSource. Raises OSError."""
        number, place = self.locate(row)
        return f"{file_stamp(self.paths[number])} {place}"


@dataclass(frozen=True, slots=True)
class Cell:
    """The picture of one row."""

    places: Places
    row: int

    @property
    def name(self) -> str:
        return self.places.name(self.row)

    def read(self) -> bytes:
        return self.places.read(self.row)

    def stamp(self) -> str:
        return self.places.stamp(self.row)


@dataclass(frozen=True)
class Part:
    """The rows of one file as columns; see `Rows`."""

    ids: Any
    captions: Any
    has_image: Mask
    split: Any
    """Arrow strings; null for none."""


def join(parts: Sequence[Part], pictures: Pictures, where: Callable[[int], str]) -> Rows:
    """The rows of all parts; the picture of a row is the one of the same number.

    Of rows with one id the first picture counts: tables with a row for each caption repeat it.
    """
    ids = concat([part.ids for part in parts], pa.large_string())
    split = concat([part.split for part in parts], pa.large_string()).dictionary_encode()
    has = np.concatenate([part.has_image for part in parts]) if parts else np.zeros(0, bool)
    having = np.flatnonzero(has)
    _, first = np.unique(number_ids(ids)[having], return_index=True)
    picture = np.full(len(ids), -1, dtype=np.int64)
    picture[having[first]] = having[first]
    return Rows(
        ids,
        concat([part.captions for part in parts], LISTS),
        pictures,
        picture,
        tuple(split.dictionary.to_pylist()),
        np.asarray(pc.fill_null(split.indices, -1), dtype=np.int64),
        where,
    )


def concat(columns: Sequence[Any], kind: Any) -> Any:
    """Columns one after another, also none at all."""
    return pa.concat_arrays(columns) if columns else pa.array([], kind)


def find_files(root: Path, suffix: str) -> list[Path]:
    """`root` itself, or the files under it whose names end so, sorted; hidden ones are left out."""
    if root.is_file():
        return [root] if root.suffix.lower() == suffix else []
    found = (path for path in root.rglob(f"*{suffix}") if path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))


def relative_name(path: Path, root: Path) -> str:
    """The path below `root`, which may be the file itself, without its suffix."""
    return (path.relative_to(root) if path != root else Path(path.name)).with_suffix("").as_posix()


def split_of(name: str) -> str | None:
    """The split that a file's path says: the last of its words, in folders too, that names one."""
    return next((word for word in reversed(re.split(r"[^A-Za-z]+", name)) if word in SPLIT_FOLDERS), None)


def numbered(name: str, mark: str, places: Any) -> Any:
    """A column of ids: a file's name, a mark, and places in the file (Arrow strings)."""
    before, between = (pa.scalar(text, pa.large_string()) for text in (name, mark))
    return pc.binary_join_element_wise(before, places, between)


def same_split(split: str | None, count: int) -> Any:
    """A column that says one split [count]."""
    return pa.array([split], pa.large_string()).take(pa.array(np.zeros(count, np.int64)))


def file_stamp(path: Path) -> str:
    """Different once the file is. Raises OSError."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
