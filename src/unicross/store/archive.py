"""An archive of embeddings: Parquet files, flushed to the disk, from which any store can be rebuilt.

A folder of parts named RUN-WRITER-NUMBER, written once and never changed; the last word on an id counts.
A part holds rows, or ids that were removed. Several processes may write in one run, each rows of its own.
The table formats of the engines may change or break; these files are plain Parquet, for anything to read.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unicross.errors import StoreError
from unicross.files import beside, write_text
from unicross.reading import read_text
from unicross.store.base import COLUMNS, Row, StoreInfo, read_info


def archive_of(address: str) -> EmbeddingArchive | None:
    """The archive of a store in a folder, beside its table. None for other stores."""
    return EmbeddingArchive(Path(address) / "embeddings") if Path(address).is_dir() else None


class EmbeddingArchive:
    """An archive in a folder. Its methods raise StoreError."""

    def __init__(self, folder: Path, run: int | None = None) -> None:
        """`run`: the number of this run where several processes write in one; the next one otherwise."""
        self.folder = folder
        self._writer, self._written = uuid.uuid4().hex[:8], 0
        try:
            self.run = run or max((int(part.stem[:8]) for part in self._parts()), default=0) + 1
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: embeddings cannot be written there: {error}") from error

    @property
    def info(self) -> StoreInfo:
        """Of the store whose embeddings these are."""
        path = self.folder / "store.json"
        try:
            return read_info(read_text(path), address=str(path))
        except (OSError, UnicodeDecodeError):
            raise StoreError(
                f"{self.folder} holds no archive of embeddings: give the folder that `unicross index` wrote, "
                "STORE/embeddings by default"
            ) from None

    def describe(self, info: StoreInfo, without: Sequence[str] = ()) -> None:
        """Note whose embeddings these are, and of which folders besides those noted before, `without` some.

        Raises StoreError where they are another model's.
        """
        path = self.folder / "store.json"
        if path.exists():
            self.info.check(info.fingerprint, address=str(self.folder))
            info = self.info.updated(info.roots, info.checkpoint, without)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(path, info.model_dump_json(indent=1))
        except OSError as error:
            raise StoreError(f"{self.folder}: embeddings cannot be written there: {error}") from error

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows with their vectors; they replace those with the same ids."""
        if rows:
            vectors = np.stack([row.vector for row in rows if row.vector is not None])  # [N, D]
            self._write(
                pa.table(
                    {
                        **{name: [getattr(row, name) for row in rows] for name in COLUMNS},
                        "extra": [json.dumps(dict(row.extra), ensure_ascii=False) for row in rows],
                        "vector": pa.FixedSizeListArray.from_arrays(
                            pa.array(vectors.ravel()), vectors.shape[1]
                        ),
                    }
                )
            )

    def forget(self, ids: Sequence[str]) -> None:
        """Note that rows were removed."""
        if ids:
            self._write(pa.table({"id": list(ids)}))

    def replay(self, *, vectors: bool = True) -> Iterator[list[Row]]:
        """The rows that are left, in lists, one a part."""
        last: dict[str, int] = {}
        parts = self._parts()
        for number, part in enumerate(parts):
            for id in _read(part, ["id"])["id"].to_pylist():
                last[id] = number
        for number, part in enumerate(parts):
            rows = [row for row in _rows(_read(part), vectors) if last[row.id] == number]
            if rows:
                yield rows

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def _write(self, table: pa.Table) -> None:
        path = self.folder / f"{self.run:08d}-{self._writer}-{self._written:06d}.parquet"
        try:
            with beside(path) as partial:
                pq.write_table(table, partial, compression="zstd")
        except OSError as error:
            raise StoreError(f"{path}: the embeddings cannot be written: {error}") from error
        self._written += 1


def _read(part: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(part, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{part}: not readable: {error}: remove it and index again") from error


def _rows(table: pa.Table, vectors: bool) -> list[Row]:
    if "vector" not in table.column_names:
        return []  # ids that were removed
    cells = table.drop_columns(["vector"]).to_pylist()
    rows = [Row(**{**row, "extra": json.loads(row["extra"])}) for row in cells]
    if not vectors:
        return rows
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return [
        replace(row, vector=vector)
        for row, vector in zip(rows, flat.reshape(len(rows), -1), strict=True)  # [N, D]
    ]
