"""What a store in memory adds to the contract of `test_store.py`: an approximate index, and never being
stale."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from store_rows import INFO, exact, make_rows
from unicross.store import Condition, Row, open_store
from unicross.store.memory import MemoryStore


def make(folder: Path, rows: list[Row]) -> MemoryStore:
    store = open_store(str(folder), INFO)
    store.upsert(rows)
    store.close()
    return MemoryStore(str(folder))


def test_cells_find_nearly_all_and_narrow_filters_find_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unicross.store.memory.EXACT_UP_TO", 100)
    monkeypatch.setattr("unicross.store.memory.PROBED", 8)
    rows = make_rows(3000)
    store = make(tmp_path / "store", rows)
    store.load()
    monkeypatch.setattr("unicross.store.lance.LanceStore.search", None)  # the disk is not asked
    found = 0
    rare = [Condition("size", "<", 1060)]
    for row in make_rows(20, seed=1):
        assert row.vector is not None
        hits = store.search(row.vector, 10, vectors=True)
        for hit in hits:
            assert hit.row.vector is not None
            assert float(hit.row.vector @ row.vector) == pytest.approx(hit.score, abs=1e-5)
        found += len({hit.row.id for hit in hits} & {id for id, _ in exact(rows, row.vector)[:10]})
        few = store.search(row.vector, 10, where=rare)
        expected = exact(rows[:60], row.vector)[:10]
        assert [hit.row.id for hit in few] == [id for id, _ in expected]
        np.testing.assert_allclose([hit.score for hit in few], [score for _, score in expected], atol=1e-5)
    assert found >= 190


def test_what_others_write_is_found_and_then_held(tmp_path: Path) -> None:
    rows = make_rows(40)
    store = make(tmp_path / "store", rows[:39])
    store.load()
    writer = open_store(str(tmp_path / "store"))
    writer.upsert(rows[39:])
    writer.close()
    vector = rows[39].vector
    assert vector is not None
    for condition in (lambda: store.search(vector, 1)[0].row.id == rows[39].id, lambda: store.holds_latest):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)
            store.search(vector, 1)
    store.close()


def test_own_writes_are_found_at_once(tmp_path: Path) -> None:
    rows = make_rows(40)
    store = make(tmp_path / "store", rows)
    store.load()
    vector = rows[0].vector
    assert vector is not None
    store.delete([rows[0].id])
    assert store.search(vector, 1)[0].row.id != rows[0].id
    store.close()


def test_a_table_that_is_too_large_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unicross.store.memory.LARGEST_BYTES", 1000)
    rows = make_rows(40)
    store = make(tmp_path / "store", rows)
    store.load()
    assert not store.holds_latest
    assert len(store.search(rows[0].vector, 3)) == 3
    store.close()
