"""What sources of many pictures in few files share: finding them, splits by name, their rows, one picture.

The pictures stay where they are until they are read. Without a column of items the id of a record is its
file and its row in it. R: rows of all files together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unicross.batches import Indices
from unicross.data.formats.rows import CAPTION_COLUMNS, SPLIT_NAMES, is_picture_name
from unicross.data.image_source import ImageFile, Pictures
from unicross.data.items import PLAIN_KIND, CaptionKind, Mask, as_unicode
from unicross.data.records import KINDS, LISTS, Records, number_ids
from unicross.data.walk import walk
from unicross.errors import DataError

NO_PICTURES = "no column of pictures is known by its name"


ROW = re.compile(r"(?s:(?P<column>.+) )?row (?P<row>\d{1,18})")
"""What `ShardRows.name` says of the place in a file."""


class ShardRows:
    """The rows of some files [R], one file after another; kinds that hold pictures say how to `read` them."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]) -> None:
        self.paths = paths
        self.own_columns: Sequence[str] = ("",) * len(paths)
        """The column of each file that the pictures are in, where its name does not say so."""
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
        return f"{self.paths[number]}: {f'{self.own_columns[number]} row {row_in_file}'.lstrip()}"

    def find(self, path: Path, place: str) -> int | None:
        """The row of a picture by what `name` says of it: its file, and its place there."""
        number = next((k for k, file in enumerate(self.paths) if file == path), None)
        match = ROW.fullmatch(place)
        if number is None or match is None or (match["column"] or "") != self.own_columns[number]:
            return None
        row = int(self._bounds[number]) + int(match["row"])
        return row if row < self._bounds[number + 1] else None

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
    dropped: Mask | None = None
    """Records that are none; None: all of them are."""
    row: Indices | None = None
    """The row of the file that each record is of; None: one record a row, in their order."""
    kinds: tuple[CaptionKind, ...] = ()
    """As of `Records`, and `kind`."""
    kind: Any = None


def join(
    files: Sequence[FileRecords],
    pictures: Pictures,
    where: Callable[[int], str],
    read_from: Iterable[Path],
    *,
    several: bool = False,
) -> Records:
    """The records of all files, whose paths `read_from` gives; the picture of a record is that of its number.

    Of records with one id the first picture counts, as tables with a row for each caption repeat it; with
    `several`, each picture that differs from those before.
    """
    ids = concat([file.ids for file in files], pa.large_string())
    split = concat([file.split for file in files], pa.large_string()).dictionary_encode()
    has_image = np.concatenate([file.has_image for file in files]) if files else np.zeros(0, bool)
    with_image = np.flatnonzero(has_image)
    numbers = number_ids(ids)[with_image]
    if several:
        numbers = _distinct(pictures, with_image, numbers)
    _, first = np.unique(numbers, return_index=True)
    picture = np.full(len(ids), -1, dtype=np.int64)
    picture[with_image[first]] = with_image[first]
    captions = concat([file.captions for file in files], LISTS)
    kinds, kind = _joined_kinds(files)
    if any(file.row is not None for file in files):
        row_of = np.concatenate(_numbered_rows(files))
        by_row = where

        def where(row: int) -> str:
            return by_row(int(row_of[row]))

    number = np.asarray(pc.fill_null(split.indices, -1), dtype=np.int64)
    if any(file.dropped is not None for file in files):
        dropped = [
            np.zeros(len(file.has_image), bool) if file.dropped is None else file.dropped for file in files
        ]
        rows = np.flatnonzero(~np.concatenate(dropped))
        ids, captions, picture, number = ids.take(rows), captions.take(rows), picture[rows], number[rows]
        kind = None if kind is None else kind.take(rows)
        place = where

        def where(row: int) -> str:
            return place(int(rows[row]))

    return Records(
        ids,
        captions,
        pictures,
        picture,
        tuple(split.dictionary.to_pylist()),
        number,
        where,
        frozenset(map(str, read_from)),
        several,
        kinds,
        kind,
    )


def _joined_kinds(files: Sequence[FileRecords]) -> tuple[tuple[CaptionKind, ...], Any]:
    """The kinds of captions in all files, and which of them each caption is."""
    if not any(file.kinds for file in files):
        return (), None
    numbers: dict[CaptionKind, int] = {}
    lists = []
    for file in files:
        of_file = [numbers.setdefault(kind, len(numbers)) for kind in file.kinds or (PLAIN_KIND,)]
        kind = file.kind
        if kind is None:  # nothing is known of its captions
            kind = pa.array([None if t is None else [0] * len(t) for t in file.captions.to_pylist()], KINDS)
        values = pa.array(of_file, pa.int32()).take(kind.values)
        lists.append(pa.LargeListArray.from_arrays(kind.offsets, values, mask=kind.is_null()))
    return tuple(numbers), concat(lists, KINDS)


def _numbered_rows(files: Sequence[FileRecords]) -> list[Indices]:
    """The row of each record, counted over all files."""
    rows, before = [], 0
    for file in files:
        of_file = np.arange(len(file.has_image)) if file.row is None else file.row
        rows.append(before + of_file)
        before += int(of_file.max(initial=-1)) + 1
    return rows


def _distinct(pictures: Pictures, rows: Indices, items: Indices) -> Indices:
    """A number for each picture [R] of these rows, equal for equal pictures of one item.

    Only where an item has several are their bytes read.
    """
    repeated = np.bincount(items)[items] > 1
    keys: list[object] = items.tolist()
    for at in np.flatnonzero(repeated):
        source = pictures[int(rows[at])]
        is_file = isinstance(source, ImageFile)
        keys[at] = (items[at], source.name if is_file else hashlib.sha256(source.read()).digest())
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def described(content: Any, captions: Sequence[str] | None = None) -> list[str] | None:
    """The captions of a sample's JSON, by their usual names or by those given; None where it has none.

    Names of pictures are none: Takeout's `title` is one. Raises ValueError for what is no JSON object.
    """
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    names = CAPTION_COLUMNS if captions is None else captions
    values = [content[name] for name in names if content.get(name) is not None]
    values = [value for value in values if not (isinstance(value, str) and is_picture_name(value))]
    if not values:
        return None
    chosen = values[:1] if captions is None else values
    texts = [text for value in chosen for text in (value if isinstance(value, list) else [value])]
    return ["" if text is None else as_unicode(str(text)) for text in texts]


def named_nowhere(root: Path, captions: Sequence[str]) -> DataError:
    """Of data whose captions are files, where fields of KEY.json were named and none has them."""
    names = " or ".join(map(repr, captions))
    return DataError(
        f"{root}: no KEY.json has a field {names} (data.caption): name one that is there, or leave it out to "
        "read KEY.txt"
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
