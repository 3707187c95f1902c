"""An archive of embeddings: Parquet files, flushed to the disk, from which any store can be rebuilt.

A folder of parts named RUN-WRITER-NUMBER, written once and never changed; the last word on an id counts.
A part holds rows, or ids that were removed. Several processes may write in one run, each rows of its own.
A list beside the parts of each writer, RUN-WRITER.json, holds their digests and names the lists before it, so
that what is missing or not as it was written is known.
The table formats of the engines may change or break; these files are plain Parquet, for anything to read.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unicross.errors import StoreError
from unicross.files import write_bytes, write_text
from unicross.progress import track
from unicross.reading import read_bytes, read_text
from unicross.store.base import COLUMNS, Row, Store, StoreInfo, check_vectors, read_info

CHUNK = 512
"""Rows that are put in between two commits to a store."""
LARGEST_PART = 2**31
"""Bytes of a part; those that are written have some megabytes."""
MEND = (
    "index or embed once more, which goes on with what is sound and adds what is lacking; to rebuild from "
    "what is left, remove the archive's files of that name"
)


def archive_of(address: str) -> EmbeddingArchive | None:
    """The archive of a store in a folder, beside its table. None for other stores."""
    return EmbeddingArchive(Path(address) / "embeddings") if Path(address).is_dir() else None


def write_rows(store: Store, archive: EmbeddingArchive | None, rows: Sequence[Row]) -> None:
    """Put rows with their vectors into an archive, if there is one, and then into a store.

    In this order, as a kill between the two leaves an archive that has all that the store has.
    """
    if archive is not None:
        archive.append(rows)
    store.upsert(rows)


class EmbeddingArchive:
    """An archive in a folder. Its methods raise StoreError."""

    def __init__(self, folder: Path, run: int | None = None) -> None:
        """`run`: the number of this run where several processes write in one; the next one otherwise."""
        self.folder = folder
        self._writer, self._written = uuid.uuid4().hex[:8], 0
        self._digests: dict[str, str] = {}
        """Of the parts in this writer's list."""
        self.checked = False
        """Whether it was compared with its store; see `gaps.py`."""
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
        check_vectors(rows)
        if rows:
            vectors = np.stack([row.vector for row in rows if row.vector is not None])  # [N, D]
            self._write(
                pa.table(
                    {
                        **{name: [getattr(row, name) for row in rows] for name in COLUMNS},
                        "digest": [row.digest for row in rows],
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
        """The rows that are left, in lists, one a part. All parts are checked before the first rows come."""
        last: dict[str, int] = {}
        parts = self._parts()
        digests, problems = self._listed()
        if problems:
            raise StoreError(problems[0])
        for number, part in enumerate(parts):
            for id in _read(part, digests.get(part.name), ["id"])["id"].to_pylist():
                last[id] = number
        for number, part in track("reading the archive", enumerate(parts), len(parts)):
            table = _read(part, digests.get(part.name))
            rows = [row for row in _rows(table, vectors) if last[row.id] == number]
            if rows:
                yield rows

    def mend(self) -> tuple[list[str], set[str]]:
        """Go on with the parts that are sound. Returns what is wrong with the others, which are set aside,
        and the ids of the rows that are left.

        Rows of the others have to be added again by the caller. Parts in no list, as a kill leaves, are
        listed.
        """
        digests, problems = self._listed()
        sound: dict[str, str] = {}
        ids: set[str] = set()
        try:
            for part in self._parts():
                try:
                    table = _read(part, digests.get(part.name), ["id", "kind"])
                except StoreError as error:
                    problems.append(str(error))
                    part.replace(part.with_suffix(".damaged"))
                    continue
                sound[part.name] = digests.get(part.name) or _digest(part.read_bytes())
                is_removal = "kind" not in table.column_names
                (ids.difference_update if is_removal else ids.update)(table["id"].to_pylist())
            if problems:
                before = self._lists()
                self._digests = sound
                self._write_list(before=[])
                for path in before:
                    if path != self._own_list:
                        path.unlink()
            elif unlisted := sound.keys() - digests.keys():
                self._digests.update({name: sound[name] for name in unlisted})
                self._write_list()
        except OSError as error:
            raise StoreError(f"{self.folder}: the archive cannot be mended: {error}") from error
        return problems, ids

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def _lists(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-*.json"))

    @property
    def _own_list(self) -> Path:
        return self.folder / f"{self.run:08d}-{self._writer}.json"

    def _listed(self) -> tuple[dict[str, str], list[str]]:
        """The digests of all parts that are in a list, and what is wrong with lists and names."""
        names = {path.name for path in (*self._lists(), *self._parts())}
        digests: dict[str, str] = {}
        expected: set[str] = set()
        problems = []
        for path in self._lists():
            try:
                content = json.loads(read_text(path))
                digests.update(content["parts"])
                expected.update(content["before"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{path}: not readable ({error}): {MEND}")
        missing = sorted((expected | digests.keys()) - names)
        problems += [f"{self.folder / name}: the archive had it and lacks it now: {MEND}" for name in missing]
        return digests, problems

    def _write(self, table: pa.Table) -> None:
        path = self.folder / f"{self.run:08d}-{self._writer}-{self._written:06d}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        try:
            write_bytes(path, data)
            self._digests[path.name] = _digest(data)
            self._write_list()
        except OSError as error:
            raise StoreError(f"{path}: the embeddings cannot be written: {error}") from error
        self._written += 1

    def _write_list(self, before: list[str] | None = None) -> None:
        if before is None:
            before = [path.name for path in self._lists() if path != self._own_list]
        write_text(self._own_list, json.dumps({"before": before, "parts": self._digests}, indent=1))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(part: Path, digest: str | None, columns: list[str] | None = None) -> pa.Table:
    """The table of a part whose digest is this one, where one is known."""
    try:
        data = read_bytes(part, LARGEST_PART)
        if digest is not None and _digest(data) != digest:
            raise StoreError(f"{part}: not as it was written: {MEND}")
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        if "id" not in names:
            raise ValueError("it has no ids")
        return file.read(columns=None if columns is None else [name for name in columns if name in names])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{part}: not readable: {error}: {MEND}") from error


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
