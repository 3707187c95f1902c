"""What every store must do, on every engine that is at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store_rows import INFO, exact, make_rows
from unicross.axes import axes_to_text
from unicross.errors import StoreError
from unicross.store import Condition, Hit, Row, Store, StoreInfo, open_store
from unicross.store.base import COLUMNS
from unicross.store.memory import MemoryStore


class AlwaysInMemory(MemoryStore):
    """Loads the table before every search, so that none is answered from the disk."""

    def search(self, *args: Any, **options: Any) -> list[Hit]:
        self.load()
        return super().search(*args, **options)


COLLECTION = count()
Make = Callable[[StoreInfo | None], Store]


@pytest.fixture(
    params=["lance", "memory", "milvus_lite", pytest.param("milvus_server", marks=pytest.mark.slow)]
)
def make(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Opens the same store again and again."""
    monkeypatch.setattr("unicross.store.memory.MemoryStore", AlwaysInMemory)
    opened: list[Store] = []
    match request.param:
        case "lance" | "memory":
            address = str(tmp_path / "store")
        case "milvus_lite":
            pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
            address = f"{tmp_path}/lite.db/photos"
        case _:
            address = f"{request.getfixturevalue('milvus_url')}/t{next(COLLECTION)}"

    def open_again(create: StoreInfo | None = None) -> Store:
        for store in opened:
            store.close()
        opened.append(open_store(address, create, in_memory=request.param == "memory"))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


def test_rows_come_back_as_they_went_in(make: Make) -> None:
    rows = make_rows(50)
    make(INFO).upsert(rows)
    store = make(None)
    got = store.get([row.id for row in reversed(rows)] + ["missing"])
    assert [row.id for row in got] == [row.id for row in reversed(rows)]
    for row, back in zip(reversed(rows), got, strict=True):
        assert replace(back, vector=None) == replace(row, vector=None)
        np.testing.assert_array_equal(back.vector, row.vector)
    assert store.info == INFO
    assert store.columns == {**COLUMNS, "stars": int, "author": str}


def test_scores_are_exact_cosines_best_first(make: Make) -> None:
    rows = make_rows(300)
    store = make(INFO)
    store.upsert(rows)
    for query in (row.vector for row in make_rows(5, seed=1)):
        hits = store.search(query, 20)
        expected = exact(rows, query)[:20]
        assert [hit.row.id for hit in hits] == [id for id, _ in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-5)


def test_hits_bring_their_vectors_where_asked(make: Make) -> None:
    rows = make_rows(50)
    store = make(INFO)
    store.upsert(rows)
    by_id = {row.id: row.vector for row in rows}
    for hit in store.search(rows[0].vector, 5, vectors=True):
        np.testing.assert_array_equal(hit.row.vector, by_id[hit.row.id])
    assert all(hit.row.vector is None for hit in store.search(rows[0].vector, 5))


def test_paging_gives_every_row_once(make: Make) -> None:
    rows = make_rows(70)
    store = make(INFO)
    store.upsert(rows)
    pages = [store.search(rows[0].vector, 20, offset=start) for start in range(0, 100, 20)]
    assert [len(page) for page in pages] == [20, 20, 20, 10, 0]
    assert [hit.row.id for page in pages for hit in page] == [id for id, _ in exact(rows, rows[0].vector)]


CONDITIONS = [
    Condition("kind", "=", "text"),
    Condition("album", "=", "o'brien's"),
    Condition("album", "=", 'say "hi"'),
    Condition("album", "=", "Ünï çödé 海"),
    Condition("album", "=", "100% _all\\"),
    Condition("album", "=", ""),
    Condition("album", "!=", "beach"),
    Condition("album", "in", ("beach", "o'brien's")),
    Condition("size", ">=", 1040),
    Condition("size", "<", 1010),
    Condition("mtime", "<=", 1_700_000_020.25),
    Condition("stars", "=", 3),
    Condition("stars", "!=", 3),
    Condition("stars", ">", 2),
    Condition("stars", "in", (0, 4)),
    Condition("author", "=", "ann"),
]


def meets(row: Row, condition: Condition) -> bool:
    cells = {name: getattr(row, name) for name in COLUMNS} | dict(row.extra)
    if condition.column not in cells:
        return False
    cell, value = cells[condition.column], condition.value
    operations = {
        "=": lambda: cell == value,
        "!=": lambda: cell != value,
        "<": lambda: cell < value,
        "<=": lambda: cell <= value,
        ">": lambda: cell > value,
        ">=": lambda: cell >= value,
        "in": lambda: cell in value,
    }
    return bool(operations[condition.operator]())


def test_filters_are_never_violated_and_lose_nothing(make: Make) -> None:
    rows = make_rows(80)
    store = make(INFO)
    store.upsert(rows)
    query = rows[7].vector
    for where in [[c] for c in CONDITIONS] + [
        [CONDITIONS[0], CONDITIONS[8]],
        [CONDITIONS[13], CONDITIONS[15]],
    ]:
        expected = [row for row in rows if all(meets(row, condition) for condition in where)]
        assert expected, where
        assert [hit.row.id for hit in store.search(query, 80, where=where)] == [
            id for id, _ in exact(expected, query)
        ], where
        assert store.count(where) == len(expected), where


def test_hostile_filter_values_are_only_values(make: Make) -> None:
    store = make(INFO)
    store.upsert(make_rows(10))
    for value in ["' OR 1=1 --", "\\' OR true", '" or 1 == 1 or "', "x\x00y", "\n", "%", "𝕏" * 500]:
        assert store.count([Condition("album", "=", value)]) == 0
        assert store.search(make_rows(1)[0].vector, 5, where=[Condition("album", "=", value)]) == []
        assert store.get([value]) == []
        store.delete([value])
    assert store.count() == 10


def test_upsert_replaces_and_delete_lasts(make: Make) -> None:
    rows = make_rows(40)
    store = make(INFO)
    store.upsert(rows)
    store.upsert([replace(row, caption="new", vector=-row.vector) for row in rows[:10]])
    assert store.count() == 40
    assert store.search(-rows[3].vector, 1)[0].row.id == rows[3].id
    assert {row.caption for row in store.get([row.id for row in rows[:10]])} == {"new"}
    store.delete([row.id for row in rows[:15]] + ["missing"])
    store.optimize()
    store = make(None)
    assert store.count() == 25
    assert store.get([row.id for row in rows[:15]]) == []
    gone = {row.id for row in rows[:15]}
    assert not gone & {hit.row.id for hit in store.search(rows[0].vector, 40)}
    assert not gone & {row.id for row in store.scan()}


def test_same_id_twice_in_one_call_is_one_row(make: Make) -> None:
    row = make_rows(1)[0]
    store = make(INFO)
    store.upsert([row, replace(row, caption="last")])
    assert [found.caption for found in store.scan()] == ["last"]


def test_empty_store(make: Make) -> None:
    store = make(INFO)
    assert store.count() == 0
    assert store.search(make_rows(1)[0].vector, 5) == []
    assert list(store.scan(vectors=True)) == []
    assert store.get([]) == []
    assert store.values("album", 10) == []
    store.upsert([])
    store.delete([])
    store.optimize()


def test_scan_gives_every_row_once_with_vectors(make: Make) -> None:
    rows = make_rows(120)
    store = make(INFO)
    store.upsert(rows)
    scanned = {row.id: row for row in store.scan(vectors=True)}
    assert scanned.keys() == {row.id for row in rows}
    np.testing.assert_array_equal(scanned[rows[5].id].vector, rows[5].vector)
    assert all(row.vector is None for row in store.scan())
    assert {row.id for row in store.scan([CONDITIONS[0]])} == {row.id for row in rows if row.kind == "text"}


def test_values_are_counted(make: Make) -> None:
    store = make(INFO)
    store.upsert(make_rows(60))
    assert dict(store.values("kind", 10)) == {"image": 40, "text": 20}
    assert dict(store.values("author", 10)) == {"ann": 30, "bob": 15}
    assert len(store.values("album", 2)) == 2
    assert store.values("kind", 5, [Condition("kind", "=", "text")]) == [("text", 20)]


def test_an_unknown_column_is_refused(make: Make) -> None:
    store = make(INFO)
    with pytest.raises(StoreError, match=r"no column 'colour'.*album"):
        store.search(make_rows(1)[0].vector, 5, where=[Condition("colour", "=", "red")])


@pytest.mark.parametrize(("k", "offset"), [(0, 0), (-1, 0), (5, -1), (10_000, 1)])
def test_depth_is_limited(make: Make, k: int, offset: int) -> None:
    with pytest.raises(StoreError, match="at most 10000"):
        make(INFO).search(make_rows(1)[0].vector, k, offset=offset)


def test_a_user_column_keeps_its_type(make: Make) -> None:
    store = make(INFO)
    row = make_rows(1)[0]
    store.upsert([replace(row, extra={"stars": 3})])
    with pytest.raises(StoreError, match="holds int, got 'five'"):
        store.upsert([replace(row, extra={"stars": "five"})])
    with pytest.raises(StoreError, match="rename"):
        store.upsert([replace(row, extra={"vector": 1})])
    with pytest.raises(StoreError, match="rename"):
        store.upsert([replace(row, extra={"drop table": 1})])


def test_axes_are_remembered(make: Make) -> None:
    """Those of a third of the numbers of a large model."""
    info = INFO.model_copy(update={"dim": 240, "axes": some_axes(768, 240)})
    make(info).remember(roots=["/photos"])
    assert make(None).info == info.model_copy(update={"roots": ("/photos",)})


def test_milvus_says_how_many_axes_it_has_room_for(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    with pytest.raises(StoreError, match=r"has room for 244 such axes: index with --dim 244"):
        open_store(
            f"{tmp_path}/lite.db/photos", INFO.model_copy(update={"dim": 245, "axes": some_axes(768, 245)})
        )


def some_axes(width: int, dim: int) -> str:
    return axes_to_text(np.random.default_rng(0).uniform(-1, 1, (width, dim)).astype(np.float32))


def test_another_model_is_refused_and_a_moved_checkpoint_remembered(make: Make) -> None:
    make(INFO)
    with pytest.raises(StoreError, match=r"filled by another model .*/somewhere/model.*new store"):
        make(INFO.model_copy(update={"fingerprint": "f2"}))
    make(INFO.model_copy(update={"checkpoint": "/new/place"}))
    assert make(None).info.checkpoint == "/new/place"


def test_what_others_remember_is_kept_and_seen(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(INFO)
    second = open_store(first.address)
    first.remember(roots=["/one"])
    first.upsert([replace(make_rows(1)[0], extra={"stars": 1})])
    if hasattr(first, "_lock"):
        first._lock.release()  # as its process does at its end
    second.remember(roots=["/two"])
    second.upsert([replace(make_rows(2)[1], extra={"price": 2.5})])
    assert second.info.roots == ("/one", "/two")
    later = time.monotonic() + 3
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert first.info.roots == ("/one", "/two")
    assert {"stars", "price"} <= first.columns.keys()
    second.close()


def test_an_index_keeps_scores_filters_and_deletes_true(
    make: Make, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    """Recall@10 >= 0.95, true cosines, filters kept, deletes lasting, new rows found."""
    monkeypatch.setattr("unicross.store.lance_index.INDEX_FROM", 1000)
    rows = make_rows(3000)
    store = make(INFO)
    store.upsert(rows)
    store.optimize()
    store.optimize()  # an index that is there is refreshed
    queries = [row.vector for row in make_rows(40, seed=1)]
    found = 0
    for query in queries:
        cosines = dict(exact(rows, query))
        hits = store.search(query, 10)
        for hit in hits:
            assert hit.score == pytest.approx(cosines[hit.row.id], abs=1e-5)
        found += len({hit.row.id for hit in hits} & {id for id, _ in exact(rows, query)[:10]})
    recall = found / (10 * len(queries))
    record_property("recall@10", recall)
    assert recall >= 0.95

    where = [Condition("author", "=", "bob"), Condition("size", "<", 1500)]
    hits = store.search(queries[0], 10, where=where)
    assert len(hits) == 10
    assert all(meets(hit.row, condition) for hit in hits for condition in where)

    gone = [hit.row.id for hit in store.search(queries[0], 10)]
    store.delete(gone)
    late = replace(rows[0], id="late", vector=queries[0])
    store.upsert([late])
    again = [hit.row.id for hit in store.search(queries[0], 10)]
    assert again[0] == "late"
    assert not set(gone) & set(again)


def test_a_row_put_in_again_without_a_user_column_has_lost_it(make: Make) -> None:
    store = make(INFO)
    first, other = make_rows(2)
    first = replace(first, extra={"stars": 3, "author": "ann"})
    store.upsert([first, other])
    store.upsert([replace(first, extra={"author": "bob"})])
    (found,) = store.get([first.id])
    assert found.extra == {"author": "bob"}
    assert store.count([Condition("stars", "=", 3)]) == 0
    assert store.count() == 2
