"""Folders that Hugging Face `datasets` saved (`save_to_disk`), read by row from memory-mapped Arrow files.

Which columns say what: see `columnar.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unicross.data.formats.columnar import read_files
from unicross.data.formats.leaves import leaf_of
from unicross.data.formats.shards import NO_PICTURES, ShardRows
from unicross.data.items import Mask
from unicross.data.records import Problem, ReadOptions, Records
from unicross.errors import DataError
from unicross.reading import check_file, read_text

SAVED_SET, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What `save_to_disk` writes into the folder of a data set, and of one with splits."""


def find(root: Path) -> list[Path]:
    """`root` where it is a folder that `datasets` saved."""
    return [root] if (root / SAVED_SPLITS).is_file() or (root / SAVED_SET).is_file() else []


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of a saved folder; damaged files are problems. Raises DataError for columns that do not do."""
    states = sorted(root.glob(f"*/{SAVED_SET}")) or [root / SAVED_SET]
    try:
        paths = [
            state.parent / file["filename"]
            for state in states
            for file in json.loads(read_text(state))["_data_files"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root}: not a folder that `datasets` saved ({error}): save it again") from error
    records, problems = read_files(root, paths, _ArrowFile, ArrowPictures, options)
    # All that `datasets` wrote belongs to it.
    return replace(records, read_from=frozenset(str(path) for path in root.rglob("*"))), problems


class _ArrowFile:
    def __init__(self, path: Path) -> None:
        check_file(path)
        with pa.memory_map(str(path)) as file:  # closing it leaves the pages mapped
            self.table = pa.ipc.open_stream(file).read_all()
        self.schema, self.rows = self.table.schema, self.table.num_rows

    def columns(self, names: Sequence[str]) -> Any:
        return self.table.select(list(dict.fromkeys(name.partition(".")[0] for name in names)))

    def present(self, leaf: str) -> Mask:
        return np.asarray(leaf_of(self.table, leaf).is_valid())

    def close(self) -> None:
        """Closed already."""


class ArrowPictures(ShardRows):
    """Pictures in memory-mapped Arrow files."""

    def __init__(self, paths: Sequence[Path], files: Sequence[_ArrowFile], leaves: Sequence[str]) -> None:
        super().__init__(paths, [file.rows for file in files])
        self._columns: list[Any] = [
            leaf_of(file.table, leaf) if leaf else None for file, leaf in zip(files, leaves, strict=True)
        ]

    def read(self, row: int) -> bytes:
        number, row_in_file = self.locate(row)
        column = self._columns[number]
        if column is None:
            raise OSError(NO_PICTURES)
        data: bytes = column[row_in_file].as_py()
        return data
