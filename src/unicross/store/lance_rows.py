"""Rows as LanceDB takes and gives them: Arrow tables, and values as SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from unicross.store.base import COLUMNS, Row
from unicross.store.filters import Value

ARROW: Mapping[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}
SQL: Mapping[type, str] = {str: "string", int: "bigint", float: "double", bool: "boolean"}


def literals(values: Sequence[Value]) -> str:
    """Values as SQL, with commas between them."""
    return ", ".join(map(literal, values))


def literal(value: Value) -> str:
    """A value as SQL: 'it''s', 3, TRUE."""
    match value:
        case str():
            return "'" + value.replace("'", "''") + "'"
        case bool():  # before numbers: a bool is an int
            return str(value).upper()
        case _:
            return repr(value)


def to_arrow(rows: Sequence[Row], schema: Any) -> Any:
    columns: dict[str, Any] = {}
    for column in schema:
        if column.name == "vector":
            flat = np.concatenate([row.vector for row in rows if row.vector is not None], dtype=np.float32)
            columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), column.type.list_size)
        elif column.name in COLUMNS:
            columns[column.name] = pa.array([getattr(row, column.name) for row in rows], column.type)
        else:
            columns[column.name] = pa.array([row.extra.get(column.name) for row in rows], column.type)
    return pa.table(columns, schema=schema)


def to_rows(table: Any) -> list[Row]:
    if "vector" not in table.schema.names or not len(table):
        return [Row.from_cells(cells) for cells in table.to_pylist()]
    column = table["vector"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)  # [N, D]
    cells = table.drop_columns(["vector"]).to_pylist()
    return [Row.from_cells(row, vector) for row, vector in zip(cells, vectors, strict=True)]
