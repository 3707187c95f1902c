"""Conditions on columns: what a search is narrowed by, and how it is written (`album=beach`)."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from unicross.errors import QueryError

Value = str | int | float | bool
ColumnTypes = Mapping[str, type]
"""Columns by name: of str, int, float or bool."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]


@dataclass(frozen=True, slots=True)
class Condition:
    """`column operator value`. A row without that user column never meets a condition on it."""

    column: str
    operator: Operator
    value: Value | tuple[Value, ...]
    """A tuple for `in`, a single value otherwise."""


Where = Sequence[Condition]
"""Conditions that must all hold."""

_CONDITION = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|!=|=|<|>)(.*)", re.DOTALL)


def parse_where(texts: Iterable[str], columns: ColumnTypes) -> list[Condition]:
    """Read conditions such as `album=beach`, `size>100000`, `mtime>=2024-05-01`.

    Several equalities on one column mean any of them. Raises QueryError.
    """
    conditions: list[Condition] = []
    equal: dict[str, list[Value]] = {}
    for text in texts:
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise QueryError(f"filter {text!r}: write it as COLUMN=VALUE (also != < <= > >=)")
        column, operator, value_text = match.groups()
        value = _parse_value(column, value_text.strip(), columns)
        if operator == "=":
            equal.setdefault(column, []).append(value)
        else:
            conditions.append(Condition(column, cast(Operator, operator), value))
    for column, values in equal.items():
        conditions.append(
            Condition(column, "in", tuple(values)) if len(values) > 1 else Condition(column, "=", values[0])
        )
    return conditions


def _parse_value(column: str, text: str, columns: ColumnTypes) -> Value:
    if column not in columns:
        raise QueryError(f"filter: no column {column!r} in this store; it has {', '.join(columns)}")
    kind = columns[column]
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if column == "mtime" and re.match(r"\d{4}($|-)", text):
            day = text + "-01-01"[len(text) - 4 :] if len(text) in (4, 7) else text
            return datetime.datetime.fromisoformat(day).timestamp()
        value: Value = kind(text)
    except (ValueError, KeyError, OverflowError, OSError):
        what = "a date such as 2024-05-01" if column == "mtime" else f"a value of type {kind.__name__}"
        raise QueryError(f"filter: {column} takes {what}, got {text!r}") from None
    if not isinstance(value, str) and not abs(value) < 2**63:
        raise QueryError(f"filter: {column} takes a number of ordinary size, got {text!r}")
    return value


def check_where(where: Where, columns: ColumnTypes) -> None:
    """Raise QueryError for a condition on a column that the store does not have."""
    for condition in where:
        if condition.column not in columns:
            raise QueryError(
                f"filter: no column {condition.column!r} in this store; it has {', '.join(columns)}"
            )
