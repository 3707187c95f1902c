"""A store in a folder: what its files and its writers may do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from store_rows import INFO, make_rows
from unicross.errors import StoreError
from unicross.store import open_store


def test_a_damaged_table_is_a_sentence(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), INFO)
    store.upsert(make_rows(50))
    for file in (tmp_path / "store" / "rows.lance" / "data").iterdir():
        file.write_bytes(b"no table")
    with pytest.raises(StoreError, match="unicross store rebuild"):
        list(store.scan())
    with pytest.raises(StoreError, match="unicross store rebuild"):
        store.search(make_rows(1)[0].vector, 3)


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unicross index CHECKPOINT FOLDER"):
        open_store(str(tmp_path / "nothing"))


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(StoreError, match="is no store"):
        open_store(str(tmp_path), INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    first = open_store(str(tmp_path / "store"), INFO)
    first.upsert(make_rows(3))
    second = open_store(str(tmp_path / "store"))
    assert second.count() == 3  # reading is free
    with pytest.raises(StoreError, match="written by another process"):
        second.upsert(make_rows(1))
    first.close()
    second.upsert(make_rows(4))
    second.close()
