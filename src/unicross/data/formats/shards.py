"""What sources of many pictures in few files share: finding them, splits by name, their rows, one picture.

The pictures stay where they are until they are read. Without an `image_id` column the id of a record is its
file and its row in it. R: rows of all files together.
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

from unicross.batches import Indices
from unicross.data.formats.rows import SPLIT_NAMES
from unicross.data.items import Mask, Pictures
from unicross.data.records import LISTS, Records, number_ids
from unicross.data.walk import walk


class ShardRows:
    """The rows of some files [R], one file after another; kinds that hold pictures say how to `read` them."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]) -> None:
        self.paths = paths
        self._bounds = np.cumsum([0, *counts])

    def __getitem__(self, row: int) -> ShardImage:
        return ShardImage(self, row)

    def files(self, rows: Indices) -> Iterable[str]:
        """The files that the pictures of these rows are read from, each once."""
        numbers = np.unique(np.searchsorted(self._bounds, rows, side="right")) - 1
        return (str(self.paths[number]) for number in numbers)

    def locate(self, row: int) -> tuple[int, int]:
        """The number of the file and the row in it."""
        number = int(np.searchsorted(self._bounds, row, side="right")) - 1
        return number, row - int(self._bounds[number])

    def name(self, row: int) -> str:
        """The file and the place in it, for messages."""
        number, row_in_file = self.locate(row)
        return f"{self.paths[number]}: row {row_in_file}"

    def read(self, row: int) -> bytes:
        """The encoded bytes of the picture of a row. Raises OSError."""
        raise NotImplementedError

    def stamp(self, row: int) -> str:
        """As of an ImageSource. Raises OSError."""
        number, row_in_file = self.locate(row)
        return f"{file_stamp(self.paths[number])} {row_in_file}"


@dataclass(frozen=True, slots=True)
class ShardImage:
    """The picture of one row."""

    shards: ShardRows
    row: int

    @property
    def name(self) -> str:
        return self.shards.name(self.row)

    def read(self) -> bytes:
        return self.shards.read(self.row)

    def stamp(self) -> str:
        return self.shards.stamp(self.row)


@dataclass(frozen=True)
class FileRecords:
    """The records of one file as columns; see `Records`."""

    ids: Any
    captions: Any
    has_image: Mask
    split: Any
    """Arrow strings; null for none."""


def join(files: Sequence[FileRecords], pictures: Pictures, where: Callable[[int], str]) -> Records:
    """The records of all files; the picture of a record is the one of the same number.

    Of records with one id the first picture counts: tables with a row for each caption repeat it.
    """
    ids = concat([file.ids for file in files], pa.large_string())
    split = concat([file.split for file in files], pa.large_string()).dictionary_encode()
    has_image = np.concatenate([file.has_image for file in files]) if files else np.zeros(0, bool)
    with_image = np.flatnonzero(has_image)
    _, first = np.unique(number_ids(ids)[with_image], return_index=True)
    picture = np.full(len(ids), -1, dtype=np.int64)
    picture[with_image[first]] = with_image[first]
    return Records(
        ids,
        concat([file.captions for file in files], LISTS),
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
    """`root` itself, or the files under it whose names end so, sorted; hidden ones are left out.

    Folders that cannot be read are passed over: this also looks at data of other formats, whose readers
    refuse them.
    """
    if root.is_file():
        return [root] if root.suffix.lower() == suffix else []
    paths = (Path(entry.path) for entry in walk(root, lambda *_: None) if entry.name.endswith(suffix))
    return sorted(path for path in paths if path.is_file())


def relative_name(path: Path, root: Path) -> str:
    """The path below `root`, which may be the file itself, without its suffix."""
    return (path.relative_to(root) if path != root else Path(path.name)).with_suffix("").as_posix()


def split_of(name: str) -> str | None:
    """The split that a file's path says: the last of its words, in folders too, that names one."""
    return next((word for word in reversed(re.split(r"[^A-Za-z]+", name)) if word in SPLIT_NAMES), None)


def numbered(name: str, mark: str, rows: Any) -> Any:
    """A column of ids: a file's name, a mark, and rows of the file or their names (Arrow strings)."""
    before, between = (pa.scalar(text, pa.large_string()) for text in (name, mark))
    return pc.binary_join_element_wise(before, rows, between)


def same_split(split: str | None, count: int) -> Any:
    """A column that says one split [count]."""
    return pa.array([split], pa.large_string()).take(pa.array(np.zeros(count, np.int64)))


def file_stamp(path: Path) -> str:
    """Different once the file is. Raises OSError."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
