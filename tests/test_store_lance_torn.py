"""A full disk that takes all of a file but its end, which LanceDB does not notice."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from store_rows import INFO, make_rows
from unicross.errors import StoreError
from unicross.store import open_store
from unicross.store.lance_torn import STEPS_BACK


def newest(store: Path, pattern: str) -> Path:
    return max(store.glob(f"rows.lance/{pattern}"), key=lambda path: path.stat().st_mtime_ns)


def cut(path: Path) -> None:
    """Take the end of a file away."""
    path.write_bytes(path.read_bytes()[:-40])


def ids(store: Path) -> list[str]:
    return sorted(row.id for row in open_store(str(store)).scan(vectors=True))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store with two changes, of 30 rows each, and their indexes."""
    store = open_store(str(tmp_path / "store"), INFO)
    store.upsert(make_rows(30, seed=0))
    store.optimize()
    store.upsert(make_rows(30, seed=1))
    store.close()
    return tmp_path / "store"


def test_a_change_that_was_cut_short_is_taken_back(filled: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the next who writes, who then has all of what is whole."""
    cut(newest(filled, "data/*.lance"))
    with pytest.raises(StoreError, match="unicross store rebuild"):
        ids(filled)
    store = open_store(str(filled))
    with caplog.at_level(logging.WARNING):
        store.upsert(make_rows(30, seed=2))
    store.close()
    assert ids(filled) == sorted(row.id for seed in (0, 2) for row in make_rows(30, seed=seed))
    assert "it has 30 rows, and had 60" in caplog.text


def test_a_torn_file_that_no_row_needs_takes_nothing_back(
    filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (filled / "rows.lance" / "data" / "left.lance").write_bytes(b"half a fi")
    before = ids(filled)
    store = open_store(str(filled))
    store.delete([before[0]])
    store.close()
    assert ids(filled) == before[1:]
    assert not caplog.text


def test_an_index_that_was_cut_short_is_made_again(filled: Path) -> None:
    cut(newest(filled, "_indices/*/*docs.lance"))
    store = open_store(str(filled))
    store.optimize()
    assert store.match("caption", 5)
    assert store.count() == 60
    store.close()


def test_old_damage_takes_nothing_back(filled: Path) -> None:
    """Rows that are whole are not given up for some that are not."""
    store = open_store(str(filled))
    for seed in range(2, 3 + STEPS_BACK):
        store.upsert(make_rows(3, seed=seed))
    store.close()
    cut(min((filled / "rows.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns))
    kept = sorted(filled.rglob("*.lance"))
    store = open_store(str(filled))
    with pytest.raises(StoreError, match="cannot be read"):
        store.upsert(make_rows(1, seed=9))
    assert sorted(filled.rglob("*.lance")) == kept


def change(store: str, largest_file: int) -> None:
    """Change a store where no file can grow beyond a size; exit code 3 where that fails."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail then, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    opened = open_store(store)
    try:
        for seed in (2, 3):
            opened.upsert(make_rows(30, seed=seed))
        opened.optimize()
    except StoreError:
        os._exit(3)


@pytest.mark.skipif(os.name != "posix", reason="the size of files is limited as POSIX has it")
@pytest.mark.parametrize("missing", [1, 40, 2000])
def test_a_disk_that_is_full_at_the_end_of_a_file(missing: int, filled: Path) -> None:
    """The change fails with a sentence and nothing of it is kept, or all of it is."""
    largest_file = newest(filled, "data/*.lance").stat().st_size - missing
    process = multiprocessing.get_context("spawn").Process(target=change, args=(str(filled), largest_file))
    process.start()
    process.join()
    assert process.exitcode == 3
    assert ids(filled) == sorted(row.id for seed in (0, 1) for row in make_rows(30, seed=seed))
