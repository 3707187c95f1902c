"""The distributed store: a collection of a Milvus server or cluster, or of a milvus-lite file.

Addresses: `http://host:19530/collection`, or `photos.db/collection` for milvus-lite. A user name and
password, or a token, come from the environment variable UNICROSS_MILVUS_TOKEN (`user:password`).
User columns live in the collection's dynamic field; what the store remembers, in its properties.
A call of `upsert` is all or nothing up to 1,000 rows. Searches see a client's own writes at once and those of
others within seconds (waiting for all of them would cost each search 0.2 s); everything else sees all.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from unicross.calibration import Calibration
from unicross.errors import QueryError, StoreError
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
from unicross.store.filters import ColumnTypes, Condition, Value, Where, check_where

try:
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError as error:
    raise StoreError("Milvus stores need pymilvus: pip install 'unicross[milvus]'") from error

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # its errors are raised here as StoreError

TOKEN = "UNICROSS_MILVUS_TOKEN"
PROPERTY = "unicross"
MAX_BYTES = {"id": 64, "kind": 16}
"""Of a built-in text column; of the others, LONGEST."""
LONGEST = 65_535
"""The most that Milvus allows in a text column."""
LARGEST_AXES = 500_000
"""Characters of a text of axes: changes of one of 1.2 MB are too large for the server's etcd (1.5 MB)."""
REQUEST = 1_000
"""Rows in one request; a request of theirs holds at most 64 MB."""
TIMEOUT_S = 60.0
MAX_STALENESS_S = 2.0
"""How long what others changed about the store may stay unseen, in seconds."""

_ADDRESS = re.compile(r"(https?://[^/]+|.+\.db)/([A-Za-z_]\w*)")
_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_MILVUS: Mapping[type, DataType] = {str: DataType.VARCHAR, int: DataType.INT64, float: DataType.DOUBLE}


class MilvusStore:
    """A store in a collection of Milvus."""

    thumbnails = None

    def __init__(self, address: str, create: StoreInfo | None = None) -> None:
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise StoreError(
                f"{address}: write a Milvus store as http://host:19530/collection (letters, digits and _)"
            )
        uri, self._name = match.groups()
        self._is_lite = uri.endswith(".db")
        self.address = address
        with self._errors():
            self._client = MilvusClient(uri=uri, token=os.environ.get(TOKEN, ""), timeout=TIMEOUT_S)
            exists = self._client.has_collection(self._name)
        if not exists:
            if create is None:
                raise no_store(address)
            self._create(create)
        with self._errors():
            self._client.load_collection(self._name)
        self._about = Cached(self._read_about, MAX_STALENESS_S)
        self._about.get()  # raises where the collection is no store

    def _create(self, info: StoreInfo) -> None:
        if len(info.axes) > LARGEST_AXES:
            most = info.dim * LARGEST_AXES // len(info.axes)
            raise StoreError(f"{self.address}: Milvus has room for {most} such axes: index with --dim {most}")
        with self._errors():
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
            for name, kind in COLUMNS.items():
                limit = {"max_length": MAX_BYTES.get(name, LONGEST)} if kind is str else {}
                schema.add_field(name, _MILVUS[kind], is_primary=name == "id", **limit)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=info.dim)
            indexes = self._client.prepare_index_params()
            indexes.add_index(
                "vector",
                index_type="HNSW",
                metric_type="COSINE",
                params={"M": 16, "efConstruction": 200},
            )
            about = {PROPERTY: json.dumps({"info": info.model_dump(), "columns": {}})}
            self._client.create_collection(
                self._name, schema=schema, index_params=indexes, consistency_level="Strong"
            )
            self._client.alter_collection_properties(self._name, about)

    @property
    def info(self) -> StoreInfo:
        return self._about.get()[0]

    @property
    def columns(self) -> ColumnTypes:
        return {**COLUMNS, **self._about.get()[1]}

    def remember(
        self,
        *,
        roots: Sequence[str] = (),
        checkpoint: str | None = None,
        without: Sequence[str] = (),
        calibration: Calibration | None = None,
    ) -> None:
        info, user = self._read_about()
        self._write_about(info.updated(roots, checkpoint, without, calibration), user)

    def _read_about(self) -> tuple[StoreInfo, dict[str, type]]:
        """What the store remembers and its user columns, as they are now."""
        with self._errors():
            properties = self._client.describe_collection(self._name).get("properties", {})
        if PROPERTY not in properties:
            raise StoreError(f"{self.address}: this collection was not made by unicross: give another name")
        about = json.loads(properties[PROPERTY])
        info = read_info(json.dumps(about["info"]), address=self.address)
        return info, {name: _TYPES[kind] for name, kind in about["columns"].items()}

    def _write_about(self, info: StoreInfo, user: dict[str, type]) -> None:
        about = {"info": info.model_dump(), "columns": {name: kind.__name__ for name, kind in user.items()}}
        with self._errors():
            self._client.alter_collection_properties(self._name, {PROPERTY: json.dumps(about)})
        self._about.put((info, user))

    def upsert(self, rows: Sequence[Row]) -> None:
        check_vectors(rows)
        if new_user_columns(rows, self.columns, address=self.address):
            info, user = self._read_about()
            new = new_user_columns(rows, {**COLUMNS, **user}, address=self.address)
            self._write_about(info, {**user, **new})
        last = list({row.id: row for row in rows}.values())
        if self._is_lite:
            self._forget_columns(last)
        for start in range(0, len(last), REQUEST):
            entities = [_entity(row) for row in last[start : start + REQUEST]]
            with self._errors():
                self._client.upsert(self._name, entities)

    def _forget_columns(self, rows: Sequence[Row]) -> None:
        """Take out the rows that these replace, where they had user columns which these lack.

        milvus-lite lays a row over the old one instead of replacing it, so such columns would stay.
        """
        old = {row.id: row for row in self.get([row.id for row in rows])}
        losing = [row.id for row in rows if row.id in old and old[row.id].extra.keys() - row.extra.keys()]
        self.delete(losing)

    def delete(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), REQUEST):
            with self._errors():
                self._client.delete(self._name, filter=_in_ids(ids[start : start + REQUEST]))

    def search(
        self, vector: Vector, k: int, *, offset: int = 0, where: Where = (), vectors: bool = False
    ) -> list[Hit]:
        check_depth(k, offset)
        with self._errors():
            (matches,) = self._client.search(
                self._name,
                [np.asarray(vector, dtype=np.float32)],
                filter=self._expression(where),
                limit=offset + k,
                output_fields=[*self.columns, *(["vector"] if vectors else [])],
                consistency_level="Session",
                search_params={"metric_type": "COSINE", "params": {"ef": max(128, 2 * (offset + k))}},
            )
        hits = [Hit(_to_row(hit["entity"]), float(hit["distance"])) for hit in matches]
        hits.sort(key=lambda hit: (-hit.score, hit.row.id))
        return hits[offset:]

    def match(
        self, words: str, k: int, *, phrases: Sequence[str] = (), every_word: bool = False
    ) -> list[Hit]:
        del words, k, phrases, every_word
        raise QueryError(
            f"{self.address}: words are matched with texts in stores in a folder only: search by vectors, or "
            "copy the store with `unicross store copy`"
        )

    def get(self, ids: Sequence[str]) -> list[Row]:
        rows: dict[str, Row] = {}
        for start in range(0, len(ids), REQUEST):
            with self._errors():
                asked = _in_ids(ids[start : start + REQUEST])
                cells = self._client.query(self._name, filter=asked, output_fields=[*self.columns, "vector"])
            rows |= {row.id: row for row in map(_to_row, cells)}
        return [rows[id] for id in ids if id in rows]

    def count(self, where: Where = ()) -> int:
        with self._errors():
            answer = self._client.query(
                self._name, filter=self._expression(where), output_fields=["count(*)"]
            )
        return int(answer[0]["count(*)"])

    def scan(self, where: Where = (), *, vectors: bool = False) -> Iterator[Row]:
        fields = [*self.columns, *(["vector"] if vectors else [])]
        for cells in self._all(where, fields):
            yield _to_row(cells)

    def _all(self, where: Where, fields: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        with self._errors():
            iterator = self._client.query_iterator(
                self._name,
                filter=self._expression(where),
                output_fields=list(fields),
                batch_size=REQUEST,
            )
        try:
            while True:
                with self._errors():
                    batch = iterator.next()
                if not batch:
                    return
                yield from batch
        finally:
            iterator.close()

    def values(self, column: str, limit: int, where: Where = ()) -> list[tuple[Value, int]]:
        check_where([Condition(column, "=", "")], self.columns)
        cells = self._all(where, ["id", column])
        counts = Counter(cell[column] for cell in cells if cell.get(column) is not None)
        return sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))[:limit]

    def optimize(self) -> None:
        with self._errors():
            self._client.flush(self._name)

    def close(self) -> None:
        self._client.close()

    def _expression(self, where: Where) -> str:
        check_where(where, self.columns)
        return " and ".join(f"({_compare(condition)})" for condition in where)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MilvusException as error:
            raise StoreError(f"{self.address}: Milvus says: {error.message}") from error


def _in_ids(ids: Sequence[str]) -> str:
    """Written here because pymilvus does not escape ids."""
    return _compare(Condition("id", "in", tuple(ids)))


def _compare(condition: Condition) -> str:
    column, value = condition.column, condition.value
    if isinstance(value, tuple):
        return f"{column} in [{', '.join(map(_literal, value))}]"
    if condition.operator == "!=":  # `!=` is true of rows without the column on some servers
        if isinstance(value, bool):
            return f"{column} == {_literal(not value)}"
        return f"{column} < {_literal(value)} or {column} > {_literal(value)}"
    return f"{column} {'==' if condition.operator == '=' else condition.operator} {_literal(value)}"


def _literal(value: Value) -> str:
    if isinstance(value, str):
        for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
            value = value.replace(plain, escaped)
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _entity(row: Row) -> dict[str, Any]:
    return {**row.built_in, **row.extra, "vector": row.vector}


def _to_row(cells: Mapping[str, Any]) -> Row:
    vector = np.asarray(cells["vector"], np.float32) if "vector" in cells else None
    return Row.from_cells(cells, vector)
