"""Which columns of an opened Parquet or Arrow file say what, and what a leaf of one holds.

A leaf is a column or a field of one, `image.bytes` for instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from unicross.data.formats.rows import (
    SAMPLE,
    ColumnNames,
    Content,
    check_columns,
    content_of,
    find_columns,
)
from unicross.data.items import Mask
from unicross.data.records import LISTS, ReadOptions
from unicross.errors import DataError


class ColumnFile(Protocol):
    """One opened file."""

    schema: Any
    rows: int

    def columns(self, names: Sequence[str]) -> Any:
        """A table of these columns or leaves of columns."""

    def present(self, leaf: str) -> Mask:
        """In which rows the leaf is not null [rows]."""

    def close(self) -> None:
        """Close the file; there may be more of them than a process may have open."""


def leaf_of(table: Any, leaf: str) -> Any:
    """A column, or a field of one: of its structs, or of the structs in its lists."""
    if leaf in table.column_names:
        return table.column(leaf)
    name, *inner = leaf.split(".")
    column = table.column(name)
    for field in inner:
        try:
            column = (
                pc.struct_field(column, field)
                if pa.types.is_struct(column.type)
                else _in_lists(column, field)
            )
        except pa.ArrowException:
            raise DataError(f"no field {field!r} in the column {name!r}, which holds {column.type}") from None
    return column


def _in_lists(column: Any, field: str) -> Any:
    lists = column.to_pylist()
    return pa.chunked_array(
        [
            [
                None
                if one is None
                else [part.get(field) if isinstance(part, dict) else None for part in one]
                if isinstance(one, list)
                else None
                for one in lists
            ]
        ],
        LISTS,
    )


def top(name: str) -> str:
    return name.partition(".")[0]


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def find_in(path: Path, file: ColumnFile, options: ReadOptions) -> ColumnNames:
    columns = find_columns(file.schema.names, options)
    known = {top(name) for name in columns.known()}
    contents: dict[str, Content] = {}
    for name in file.schema.names:
        kind = file.schema.field(name).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            contents[name] = "texts" if pa.types.is_string(kind.value_type) else "numbers"
        elif _is_encoded(kind):
            contents[name] = "pictures"
        elif _is_text(kind) and (
            name in columns.images or (name not in known and not (columns.images and columns.captions))
        ):
            contents[name] = content_of(file.columns([name]).column(name)[:SAMPLE].to_pylist())
        else:
            contents[name] = "numbers"  # or lists and the like, or known: nothing that would be passed over
    check_columns(path, columns, contents, options)
    return columns


def _is_encoded(kind: Any) -> bool:
    """Whether a column of this type can hold pictures, as their files are."""
    if pa.types.is_struct(kind):
        field = kind.get_field_index("bytes")
        return field >= 0 and _is_encoded(kind.field(field).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def image_leaves(path: Path, schema: Any, names: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Where the encoded bytes are, and where paths of pictures are; None and () where there is no such
    thing."""
    inside: list[str] = []
    pointers: list[str] = []
    for name in names:
        kind = schema.field(name).type
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if _is_encoded(kind) and not pa.types.is_struct(kind):
            inside.append(name)
        elif _is_text(kind) or (listed and _is_text(kind.value_type)):
            pointers.append(name)
        elif pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            inside.append(f"{name}.bytes")
            pointers += [f"{name}.path"] if kind.get_field_index("path") >= 0 else []
        else:
            raise DataError(
                f"{path}: the column {name!r} holds {kind}: images must be encoded bytes, {{bytes, path}}, "
                "paths, or lists of paths"
            )
    if len(inside) > 1 or (inside and len(names) > 1):
        raise DataError(
            f"{path}: of {' and '.join(names)} only one column may hold encoded pictures: write a row for "
            "each picture, with a column that says which item it is of (data.item)"
        )
    return next(iter(inside), None), tuple(pointers)
