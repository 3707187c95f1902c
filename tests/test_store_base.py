"""Filters as people write them: `album=lake`, `mtime>=2024-05-01`."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicross.errors import StoreError
from unicross.store import Condition, parse_where
from unicross.store.base import COLUMNS

COLUMNS_FOR_PARSING = {**COLUMNS, "stars": int, "sold": bool}


def test_where_is_parsed() -> None:
    assert parse_where(["album=a = b", "size >= 10", "stars!=3", "sold=true"], COLUMNS_FOR_PARSING) == [
        Condition("size", ">=", 10),
        Condition("stars", "!=", 3),
        Condition("album", "=", "a = b"),
        Condition("sold", "=", True),
    ]
    assert parse_where(["album=a", "album=b"], COLUMNS_FOR_PARSING) == [Condition("album", "in", ("a", "b"))]
    (day,) = parse_where(["mtime>=2024-05-01T00:00:00+00:00"], COLUMNS_FOR_PARSING)
    assert day.value == 1714521600.0
    for text, first in (("2024", "2024-01-01"), ("2024-05", "2024-05-01")):
        (year,) = parse_where([f"mtime>={text}"], COLUMNS_FOR_PARSING)
        assert year.value == datetime.fromisoformat(first).timestamp()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "COLUMN=VALUE"),
        ("colour=red", "no column 'colour'"),
        ("size=big", "type int"),
        ("size=" + "9" * 30, "ordinary size"),
        ("mtime=nan", "ordinary size"),
        ("mtime>=2024-99-99", "a date such as 2024-05-01"),
        ("sold=maybe", "type bool"),
    ],
)
def test_a_wrong_filter_gets_a_sentence(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        parse_where([text], COLUMNS_FOR_PARSING)


@given(st.text())
def test_any_filter_text_is_parsed_or_refused(text: str) -> None:
    with suppress(StoreError):
        parse_where([text], COLUMNS_FOR_PARSING)
