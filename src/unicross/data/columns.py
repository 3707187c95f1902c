"""Parquet files and folders that Hugging Face `datasets` saved: pictures in columns, read by row.

Columns are found by their usual names (see `table.py`): an image (bytes, Hugging Face's `{bytes, path}`, or a
path), a caption (a text or a list of texts), perhaps `split` and `image_id`. Rows without an image are texts
alone, rows without a caption images alone. Only the small columns are read beforehand.

A Parquet file gives its pictures by row group, the last few of which are kept: small groups (about 100 rows)
make random access fast, and `data.cache=disk` reads each group once. Saved Arrow files are memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unicross.data.items import Files
from unicross.data.rows import LISTS, Problem, Rows, as_lists, find_image, image_folders
from unicross.data.shards import (
    Mask,
    Part,
    Places,
    find_files,
    join,
    numbered,
    relative_name,
    same_split,
    split_of,
)
from unicross.data.table import CAPTION_COLUMNS, IMAGE_COLUMNS, Columns, find_columns
from unicross.errors import DataError

SAVED_SET, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What `save_to_disk` writes into the folder of a data set, and of one with splits."""
KEPT_GROUPS = 2
"""Row groups kept in memory, however many threads ask."""


def parquet_files(root: Path) -> list[Path]:
    """Parquet files at `root`: the file itself, or those in the folder and its folders."""
    return find_files(root, ".parquet")


def is_saved(root: Path) -> bool:
    """Whether `root` is a folder that `datasets` saved."""
    return (root / SAVED_SPLITS).is_file() or (root / SAVED_SET).is_file()


def read_parquet(root: Path) -> tuple[Rows, list[Problem]]:
    """Rows of Parquet files; damaged ones are problems. Raises DataError for columns that do not do."""
    return _read(root, parquet_files(root), _Parquet, ParquetPictures)


def read_saved(root: Path) -> tuple[Rows, list[Problem]]:
    """Rows of a folder that `datasets` saved; as `read_parquet`."""
    states = sorted(root.glob(f"*/{SAVED_SET}")) or [root / SAVED_SET]
    try:
        paths = [
            state.parent / one["filename"]
            for state in states
            for one in json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root}: not a folder that `datasets` saved ({error}): save it again") from error
    return _read(root, paths, _Saved, SavedPictures)


class _File(Protocol):
    """One opened file."""

    schema: Any
    rows: int

    def columns(self, names: Sequence[str]) -> Any:
        """A table of these columns or leaves of columns."""

    def present(self, leaf: str) -> Mask:
        """In which rows the leaf is not null [rows]."""

    def close(self) -> None:
        """Close the file; there may be more of them than a process may have open."""


F = TypeVar("F", bound=_File)


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.file = pq.ParquetFile(path)
        self.schema, self.metadata = self.file.schema_arrow, self.file.metadata
        self.rows: int = self.metadata.num_rows

    def columns(self, names: Sequence[str]) -> Any:
        return self.file.read(columns=list(names))

    def present(self, leaf: str) -> Mask:
        """By the statistics of the row groups; the pictures are read only where some of a group are null."""
        parts = [np.zeros(0, bool)]
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            found = (group.column(i) for i in range(group.num_columns))
            statistics = next(c.statistics for c in found if c.path_in_schema == leaf)
            nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
            if nulls in (0, group.num_rows):
                parts.append(np.full(group.num_rows, nulls == 0))
            else:
                table = self.file.read_row_group(number, columns=[leaf])
                parts.append(np.asarray(_leaf(table, leaf).is_valid()))
        return np.concatenate(parts)

    def close(self) -> None:
        self.file.close()


class _Saved:
    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as file:  # closing it leaves the pages mapped
            self.table = pa.ipc.open_stream(file).read_all()
        self.schema, self.rows = self.table.schema, self.table.num_rows

    def columns(self, names: Sequence[str]) -> Any:
        return self.table.select(list(dict.fromkeys(name.partition(".")[0] for name in names)))

    def present(self, leaf: str) -> Mask:
        return np.asarray(_leaf(self.table, leaf).is_valid())

    def close(self) -> None:
        """Closed already."""


class ParquetPictures(Places):
    """Pictures in Parquet files, read by row group."""

    def __init__(self, paths: Sequence[Path], files: Sequence[_Parquet], leaves: Sequence[str]) -> None:
        super().__init__(paths, [file.rows for file in files])
        self._metadata, self._leaves = [file.metadata for file in files], leaves
        self._starts = [
            np.cumsum([0, *(data.row_group(group).num_rows for group in range(data.num_row_groups))])
            for data in self._metadata
        ]
        """The first row of each row group, by file."""
        self._kept = lru_cache(KEPT_GROUPS)(self._group)
        self._lock = Lock()

    def read(self, row: int) -> bytes:
        number, place = self.locate(row)
        group = int(np.searchsorted(self._starts[number], place, side="right")) - 1
        try:
            with self._lock:
                column = self._kept(number, group)
            found: bytes = column[place - int(self._starts[number][group])].as_py()
        except (pa.ArrowException, IndexError) as error:
            raise OSError(f"row group {group} cannot be read: {error}") from error
        return found

    def _group(self, number: int, group: int) -> Any:
        leaf = self._leaves[number]
        with pq.ParquetFile(self.paths[number], metadata=self._metadata[number]) as file:
            return _leaf(file.read_row_group(group, columns=[leaf], use_threads=False), leaf)


class SavedPictures(Places):
    """Pictures in memory-mapped Arrow files."""

    def __init__(self, paths: Sequence[Path], files: Sequence[_Saved], leaves: Sequence[str]) -> None:
        super().__init__(paths, [file.rows for file in files])
        self._columns: list[Any] = [
            _leaf(file.table, leaf) if leaf else None for file, leaf in zip(files, leaves, strict=True)
        ]

    def read(self, row: int) -> bytes:
        number, place = self.locate(row)
        found: bytes = self._columns[number][place].as_py()
        return found


def _read(
    root: Path,
    paths: Sequence[Path],
    open_: Callable[[Path], F],
    embedded: Callable[[Sequence[Path], Sequence[F], Sequence[str]], Places],
) -> tuple[Rows, list[Problem]]:
    problems: list[Problem] = []
    sound: list[Path] = []
    files: list[F] = []
    parts: list[Part] = []
    leaves: list[str] = []
    pointed: list[Path] = []
    for path in paths:
        try:
            file = open_(path)
            columns = _find(path, file.schema)
            leaf, pointer = _image_leaves(path, file.schema, columns.image)
            has = file.present(leaf) if leaf else np.zeros(file.rows, bool)
            if pointer and not has.any():
                leaf = None
            pointer = None if leaf else pointer
            wanted = (columns.caption, columns.split, columns.image_id, pointer)
            table = file.columns([name for name in wanted if name is not None])
            file.close()
        except (OSError, pa.ArrowException) as error:
            what = f"cannot be read ({error}): copy or download it again"
            problems.append(Problem("damaged shard", str(path), what, split_of(relative_name(path, root))))
            continue
        part, found = _part(path, root, table, columns, has, pointer)
        sound.append(path)
        files.append(file)
        parts.append(part)
        pointed += found
        leaves.append(leaf or "")
    places = embedded(sound, files, leaves)
    if not pointed:
        return join(parts, places, places.name), problems
    if any(leaves) or len(pointed) < sum(file.rows for file in files):
        raise DataError(f"{root}: some files hold paths of pictures and others do not: read them one by one")
    return join(parts, Files(pointed), places.name), problems


def _part(
    path: Path, root: Path, table: Any, columns: Columns, has: Mask, pointer: str | None
) -> tuple[Part, list[Path]]:
    """The rows of a file, and the paths of their pictures [rows] where these are files of their own."""
    name, rows = relative_name(path, root), len(has)
    numbers = pa.array(np.arange(rows)).cast(pa.large_string())
    ids = numbered(name, ":", numbers)
    split = same_split(split_of(name), rows)
    pointed: list[Path] = []
    if pointer is not None:
        written = pc.fill_null(_text(path, table, pointer), "")
        has = np.asarray(pc.binary_length(written)) > 0
        folders = [*image_folders(path.parent), *image_folders(root if root.is_dir() else root.parent)]
        found = {one: find_image(one, folders) for one in pc.unique(written).to_pylist()}
        pointed = [found[one.as_py()] for one in written]
        ids = pc.if_else(pa.array(has), written, ids)
    if columns.split is not None:
        split = pc.coalesce(_text(path, table, columns.split), split)
    if columns.image_id is not None:
        ids = pc.coalesce(_text(path, table, columns.image_id), ids)
    captions = pa.nulls(rows, LISTS)
    if columns.caption is not None:
        captions = _captions(path, table, columns.caption)
    return Part(ids, captions, has, split), pointed


def _find(path: Path, schema: Any) -> Columns:
    columns = find_columns(schema.names)
    if columns.image is None and columns.caption is None:
        raise DataError(
            f"{path}: no image and no caption column among {', '.join(schema.names)}. Call them "
            f"{' or '.join(IMAGE_COLUMNS)}; {' or '.join(CAPTION_COLUMNS)}"
        )
    return columns


def _image_leaves(path: Path, schema: Any, name: str | None) -> tuple[str | None, str | None]:
    """Where the encoded bytes are and where the path of the picture is; None where there is no such thing."""
    if name is None:
        return None, None
    kind = schema.field(name).type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return name, None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return None, name
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{name}.bytes", f"{name}.path" if kind.get_field_index("path") >= 0 else None
    raise DataError(
        f"{path}: the column {name!r} holds {kind}: images must be encoded bytes, {{bytes, path}}, or paths"
    )


def _leaf(table: Any, leaf: str) -> Any:
    """A column, or a field of one."""
    name, _, inner = leaf.partition(".")
    return pc.struct_field(table.column(name), inner) if inner else table.column(name)


def _text(path: Path, table: Any, leaf: str) -> Any:
    """A column as Arrow strings, nulls staying null."""
    try:
        return _leaf(table, leaf).cast(pa.large_string()).combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"{path}: the column {leaf!r} must hold texts: {error}") from None


def _captions(path: Path, table: Any, name: str) -> Any:
    """A column of texts or of lists of texts as LISTS."""
    column = table.column(name)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        texts = _text(path, table, name)
        return as_lists(texts.drop_null(), np.asarray(texts.is_valid()))
    try:
        return column.cast(LISTS).combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"{path}: the column {name!r} must hold texts or lists of them: {error}") from None
