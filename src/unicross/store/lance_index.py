"""The indexes of a LanceDB table: of vectors where they are many, and of the words of its texts."""

from __future__ import annotations

from typing import Any

import lancedb

from unicross.store.filters import ColumnTypes
from unicross.store.lance_text import text_index

INDEX_FROM = 50_000
"""Rows from which an approximate index is built; below, exact search takes milliseconds."""


def text_columns(columns: ColumnTypes) -> list[str]:
    """Columns whose words can be searched for; the album is part of the path."""
    return [name for name, kind in columns.items() if kind is str and name not in ("id", "kind", "album")]


def build_indexes(table: Any, columns: ColumnTypes) -> None:
    """Build the indexes that a table lacks; those that are there are left to LanceDB's own `optimize`."""
    wanted: dict[str, Any] = {}
    if table.count_rows() >= INDEX_FROM:
        wanted |= {
            "vector": lancedb.index.HnswSq(distance_type="cosine"),
            "id": lancedb.index.BTree(),
            "kind": lancedb.index.Bitmap(),
        }
    if table.count_rows():
        wanted |= {column: text_index(column) for column in text_columns(columns)}
    there = {index.name for index in table.list_indices()}
    for column, config in wanted.items():
        if f"{column}_idx" not in there:
            table.create_index(column, config=config)
