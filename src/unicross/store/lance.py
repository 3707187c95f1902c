"""The embedded store: a LanceDB table in a folder, with nothing to run beside it.

    photos.lance/
        store.json     what the store remembers about itself
        rows.lance/    the table; every change is a new version of it, all or nothing
        thumbnails.sqlite
                       small pictures, where they are kept (see `thumbnails.py`)
        lock           held by the process that writes

Searches are exact until `optimize` builds an index, which it does when the table is large enough. With an
index the nearest candidates are scored again with the full vectors, so that scores are true cosines.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from unicross.calibration import Calibration
from unicross.errors import StoreError
from unicross.files import write_text
from unicross.reading import read_text
from unicross.store.base import (
    COLUMNS,
    Hit,
    Row,
    StoreInfo,
    Vector,
    check_depth,
    check_vectors,
    new_user_columns,
    no_store,
    read_info,
)
from unicross.store.cached import Cached
from unicross.store.filters import ColumnTypes, Value, Where, check_where

os.environ.setdefault("LANCEDB_LOG", "error")
import lancedb

from unicross.store.lance_index import build_indexes, text_columns
from unicross.store.lance_rows import ARROW, SQL, literal, literals, to_arrow, to_rows
from unicross.store.lance_text import text_query
from unicross.store.lance_torn import files_of, mend, torn
from unicross.store.thumbnails import FILE as THUMBNAILS
from unicross.store.thumbnails import Thumbnails

REFINE = 2
"""Candidates scored again with full vectors, as a multiple of k."""

EXPLORED = 128
"""Candidates that a search keeps while it walks the index; more find more and take longer."""

MAX_STALENESS_S = 2.0
"""How long another process's changes may stay unseen, in seconds."""


class LanceStore:
    """A store in a folder of this machine."""

    def __init__(self, address: str, create: StoreInfo | None = None) -> None:
        self.address = address
        self._folder = Path(address)
        self.thumbnails = Thumbnails(self._folder)
        self._lock = FileLock(self._folder / "lock", thread_local=False)
        self._description = self._folder / "store.json"
        self._info = Cached(self._read_info, MAX_STALENESS_S)
        self._columns = Cached(self._read_columns, MAX_STALENESS_S)
        if not self._description.exists():
            if create is None:
                raise no_store(address)
            self._create(create)
        self._info.get()  # raises where the description is damaged
        try:
            max_staleness = datetime.timedelta(seconds=MAX_STALENESS_S)
            connection = lancedb.connect(self._folder, read_consistency_interval=max_staleness)
            self._table = connection.open_table("rows")
        except Exception as error:
            raise StoreError(
                f"{address}: the table cannot be opened ({error}): make a new store from its "
                f"embeddings with `unicross store rebuild {address}/embeddings NEW`"
            ) from error

    def _create(self, info: StoreInfo) -> None:
        if self._folder.exists() and (not self._folder.is_dir() or _foreign(self._folder)):
            raise StoreError(f"{self.address} is there and is no store: give a new or an empty folder")
        schema = pa.schema(
            [pa.field(name, ARROW[kind]) for name, kind in COLUMNS.items()]
            + [pa.field("vector", pa.list_(pa.float32(), info.dim))]
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lancedb.connect(self._folder).create_table("rows", schema=schema, mode="overwrite")
            write_text(self._description, info.model_dump_json(indent=1))
        except OSError as error:
            raise StoreError(f"{self.address}: no store can be made there: {error}") from error

    @property
    def info(self) -> StoreInfo:
        return self._info.get()

    def _read_info(self) -> StoreInfo:
        return read_info(_read(self._description), address=self.address)

    @property
    def columns(self) -> ColumnTypes:
        return self._columns.get()

    def _read_columns(self) -> ColumnTypes:
        python = {arrow: kind for kind, arrow in ARROW.items()}
        return {column.name: python[column.type] for column in self._table.schema if column.name != "vector"}

    def remember(
        self,
        *,
        roots: Sequence[str] = (),
        checkpoint: str | None = None,
        without: Sequence[str] = (),
        calibration: Calibration | None = None,
    ) -> None:
        self._write_lock()
        old = self._read_info()
        new = old.updated(roots, checkpoint, without, calibration)
        if new != old:
            write_text(self._description, new.model_dump_json(indent=1))
        self._info.put(new)

    def upsert(self, rows: Sequence[Row]) -> None:
        check_vectors(rows)
        if not rows:
            return
        self._write_lock()
        new = new_user_columns(rows, self.columns, address=self.address)
        with self._whole():
            if new:
                self._table.add_columns({name: f"cast(NULL as {SQL[kind]})" for name, kind in new.items()})
                self._columns.expire()
            last = {row.id: row for row in rows}  # within one call too, the last of an id wins
            table = to_arrow(list(last.values()), self._table.schema)
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(table)
        self._changed()

    def delete(self, ids: Sequence[str]) -> None:
        self._write_lock()
        self.thumbnails.delete(ids)  # first: who is killed here deletes the rows again
        with self._whole():
            for start in range(0, len(ids), 1000):
                self._table.delete(f"id IN ({literals(ids[start : start + 1000])})")
        self._changed()

    def search(
        self, vector: Vector, k: int, *, offset: int = 0, where: Where = (), vectors: bool = False
    ) -> list[Hit]:
        check_depth(k, offset)
        with self._errors():
            query = self._table.search(np.asarray(vector, dtype=np.float32)).distance_type("cosine")
            query = query.limit(offset + k).refine_factor(REFINE).ef(max(EXPLORED, REFINE * (offset + k)))
            query = query.select([*self.columns, "_distance", *(["vector"] if vectors else [])])
            if where:
                query = query.where(self._sql(where), prefilter=True)
            matches = query.to_arrow()
            scores = 1.0 - matches["_distance"].to_numpy()
            rows = to_rows(matches.drop_columns(["_distance"]))
            hits = [Hit(row, float(score)) for row, score in zip(rows, scores, strict=True)]
        hits.sort(key=lambda hit: (-hit.score, hit.row.id))
        return hits[offset:]

    def match(
        self, words: str, k: int, *, phrases: Sequence[str] = (), every_word: bool = False
    ) -> list[Hit]:
        check_depth(k, 0)
        names = text_columns(self.columns)
        with self._errors():
            query = self._table.search(text_query(words, phrases, names, every_word), query_type="fts")
            matches = query.select([*self.columns, "_score"]).limit(k).to_arrow().to_pylist()
        hits = [Hit(score=cells.pop("_score"), row=Row.from_cells(cells)) for cells in matches]
        return sorted(hits, key=lambda hit: (-hit.score, hit.row.id))

    def get(self, ids: Sequence[str]) -> list[Row]:
        rows: dict[str, Row] = {}
        for start in range(0, len(ids), 1000):
            asked = ids[start : start + 1000]
            with self._errors():
                query = self._table.search().where(f"id IN ({literals(asked)})").limit(len(asked))
                rows |= {row.id: row for row in to_rows(query.to_arrow())}
        return [rows[id] for id in ids if id in rows]

    def count(self, where: Where = ()) -> int:
        with self._errors():
            return int(self._table.count_rows(self._sql(where) if where else None))

    def scan(self, where: Where = (), *, vectors: bool = False) -> Iterator[Row]:
        with self._errors():
            query = self._table.search().select([*self.columns, *(["vector"] if vectors else [])])
            if where:
                query = query.where(self._sql(where))
            batches = iter(query.limit(max(1, self._table.count_rows())).to_batches(batch_size=4096))
        while True:
            with self._errors():
                batch = next(batches, None)
            if batch is None:
                return
            yield from to_rows(pa.Table.from_batches([batch]))

    def values(self, column: str, limit: int, where: Where = ()) -> list[tuple[Value, int]]:
        with self._errors():
            query = self._table.search().select([column]).limit(max(1, self._table.count_rows()))
            if where:
                query = query.where(self._sql(where))
            cells = query.to_arrow()[column]
        counts = [
            (c["values"], c["counts"]) for c in cells.value_counts().to_pylist() if c["values"] is not None
        ]
        return sorted(counts, key=lambda pair: (-pair[1], str(pair[0])))[:limit]

    def optimize(self) -> None:
        self._write_lock()
        with self._whole():
            build_indexes(self._table, self.columns)
            self._table.optimize(cleanup_older_than=datetime.timedelta(hours=1))
        self._changed()

    def close(self) -> None:
        self._lock.release()

    def _changed(self) -> None:
        """Called when this process has written to the table."""

    def _sql(self, where: Where) -> str:
        check_where(where, self.columns)
        parts = []
        for condition in where:
            column = f"`{condition.column}`"
            if isinstance(condition.value, tuple):
                parts.append(f"{column} IN ({literals(condition.value)})")
            else:
                parts.append(f"{column} {condition.operator} {literal(condition.value)}")
        return " AND ".join(parts)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:  # what LanceDB raises, a full disk among it
            raise StoreError(
                f"{self.address}: {error}. If the table is damaged, make a new store from its embeddings: "
                f"`unicross store rebuild {self.address}/embeddings NEW`"
            ) from error

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Around each change: all of it is kept, or StoreError is raised and nothing is."""
        folder = self._folder / "rows.lance"
        before = files_of(folder)
        with self._errors():
            try:
                yield
            finally:
                if cut := torn(files_of(folder) - before):
                    mend(self._table, cut)
                    self._columns.expire()
            if cut:
                raise OSError(f"{cut[0]} was cut short; is the disk full?")

    def _write_lock(self) -> None:
        """Only one process writes at a time; the lock goes with `close` or with the process."""
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise StoreError(
                    f"{self.address} is being written by another process: wait until it is done"
                ) from None
            with self._errors():
                self._table.checkout_latest()  # the one who held the lock before may just have written
                if cut := torn(files_of(self._folder / "rows.lance")):
                    mend(self._table, cut)
            self._columns.expire()


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not readable: {error}") from error


def _foreign(folder: Path) -> bool:
    """Whether a folder holds anything that a store cut off while it was made would not."""
    return any(
        child.name not in {"rows.lance", "lock", "embeddings", THUMBNAILS} for child in folder.iterdir()
    )
