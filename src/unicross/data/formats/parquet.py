"""Parquet files with pictures or their paths in a column (see `columnar.py`), read by row.

Pictures are read by row group, the last few of which are cached: small groups (about 100 rows) make random
access fast, and `data.cache=disk` reads each group once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unicross.data.formats import tar
from unicross.data.formats.columnar import read_files
from unicross.data.formats.downloads import is_note
from unicross.data.formats.leaves import leaf_of
from unicross.data.formats.shards import NO_PICTURES, ShardRows, find_files
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.items import Mask
from unicross.data.records import Problem, ReadOptions, Records
from unicross.data.walk import walk
from unicross.reading import check_file

CACHED_GROUPS = 2
"""Row groups kept in memory, however many threads ask."""


def find(root: Path) -> list[Path]:
    """`root` where it is a Parquet file, or a folder with such files in it or in its folders."""
    files = find_files(root, ".parquet")
    if not files or tar.find(root):  # those beside shards are the downloader's notes
        return []
    return [] if all(map(is_note, files)) and _has_pictures(root) else [root]


def _files(root: Path) -> list[Path]:
    """Those with pictures; notes of a downloader only where there is nothing else."""
    files = find_files(root, ".parquet")
    return [path for path in files if not is_note(path)] or files


def _has_pictures(root: Path) -> bool:
    entries = walk(root, lambda *_: None) if root.is_dir() else ()
    return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries)


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of Parquet files; damaged ones are problems. Raises DataError for columns that do not do."""
    return read_files(root, _files(root), _ParquetFile, ParquetPictures, options)


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        check_file(path)
        self.file = pq.ParquetFile(path)
        self.schema, self.metadata = self.file.schema_arrow, self.file.metadata
        self.rows: int = self.metadata.num_rows

    def columns(self, names: Sequence[str]) -> Any:
        return self.file.read(columns=list(names))

    def present(self, leaf: str) -> Mask:
        """By the statistics of the row groups; the pictures are read only where some of a group are null."""
        by_group = [np.zeros(0, bool)]
        for number in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(number)
            columns = (group.column(i) for i in range(group.num_columns))
            statistics = next(column.statistics for column in columns if column.path_in_schema == leaf)
            nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
            if nulls in (0, group.num_rows):
                by_group.append(np.full(group.num_rows, nulls == 0))
            else:
                table = self.file.read_row_group(number, columns=[leaf])
                by_group.append(np.asarray(leaf_of(table, leaf).is_valid()))
        return np.concatenate(by_group)

    def close(self) -> None:
        self.file.close()


class ParquetPictures(ShardRows):
    """Pictures in Parquet files, read by row group."""

    def __init__(self, paths: Sequence[Path], files: Sequence[_ParquetFile], leaves: Sequence[str]) -> None:
        super().__init__(paths, [file.rows for file in files])
        self._metadata, self._leaves = [file.metadata for file in files], leaves
        self._starts = [
            np.cumsum([0, *(data.row_group(group).num_rows for group in range(data.num_row_groups))])
            for data in self._metadata
        ]
        """The first row of each row group, by file."""
        self._cached_group = lru_cache(CACHED_GROUPS)(self._group)
        self._lock = Lock()

    def read(self, row: int) -> bytes:
        file, row_in_file = self.locate(row)
        group = int(np.searchsorted(self._starts[file], row_in_file, side="right")) - 1
        try:
            with self._lock:  # so that threads that ask for one group read it once
                column = self._cached_group(file, group)
            data: bytes = column[row_in_file - int(self._starts[file][group])].as_py()
        except (pa.ArrowException, IndexError) as error:
            raise OSError(f"row group {group} cannot be read: {error}") from error
        return data

    def _group(self, number: int, group: int) -> Any:
        leaf = self._leaves[number]
        if not leaf:
            raise OSError(NO_PICTURES)
        with pq.ParquetFile(self.paths[number], metadata=self._metadata[number]) as file:
            return leaf_of(file.read_row_group(group, columns=[leaf], use_threads=False), leaf)
