"""Stores copied to other engines and back, and made anew from an archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fake_model import INFO, FakeModel, gallery, paint, touch
from unicross.progress import progress_shown_by
from unicross.store import Store, open_store
from unicross.store.archive import EmbeddingArchive, archive_of
from unicross.store.copy import copy, rebuild
from unicross.store.index import index


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), INFO)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return gallery(tmp_path / "photos")


def test_a_copy_has_an_archive_too(model: FakeModel, store: Store, photos: Path, tmp_path: Path) -> None:
    index(model, photos, store)
    again = open_store(str(tmp_path / "again"), store.info)
    told: list[tuple[str, int, int]] = []
    with progress_shown_by(lambda *what: told.append(what)):
        copy(store, again, archive_of(again.address))
    assert told == [("copying", 0, 1), ("copying", 1, 1)]
    paint(photos / "new.png", "purple")
    index(model, photos, again, archive=archive_of(again.address))
    archive = archive_of(again.address)
    assert archive is not None
    assert {row.id for rows in archive.replay() for row in rows} == {row.id for row in again.scan()}
    assert archive.info == again.info


def test_a_store_is_rebuilt_from_its_archive(model: FakeModel, store: Store, photos: Path) -> None:
    archive = photos.parent / "archive"
    table = photos.parent / "captions.csv"
    table.write_text("image,caption,year\nred.png,a red square,2020\nb/white.png,white,2021\n")
    index(model, photos, store, captions=table, archive=EmbeddingArchive(archive))
    touch(paint(photos / "red.png", "purple"), 2_000_000_000)
    (photos / "b" / "white.png").unlink()
    index(model, photos, store, prune=True, archive=EmbeddingArchive(archive))
    rebuilt = open_store(str(photos.parent / "again"), EmbeddingArchive(archive).info)
    told: list[str] = []
    with progress_shown_by(lambda what, *_: told.append(what)):
        rebuild(EmbeddingArchive(archive), rebuilt)
    assert "reading the archive" in told
    assert rebuilt.info == store.info
    before = {row.id: row for row in store.scan(vectors=True)}
    after = {row.id: row for row in rebuilt.scan(vectors=True)}
    assert before.keys() == after.keys()
    for id, row in before.items():
        assert (row.path, row.caption, row.extra) == (after[id].path, after[id].caption, after[id].extra)
        np.testing.assert_array_equal(row.vector, after[id].vector)


@pytest.mark.parametrize("engine", ["milvus_lite", pytest.param("milvus_server", marks=pytest.mark.slow)])
def test_a_store_moves_between_engines_and_back(
    model: FakeModel, store: Store, photos: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    if engine == "milvus_lite":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
        address = f"{photos.parent}/lite.db/photos"
    else:
        address = f"{request.getfixturevalue('milvus_url')}/moved"
    table = photos.parent / "captions.csv"
    table.write_text("image,caption,year\nred.png,a red square,2020\nb/white.png,white,2021\n")
    index(model, photos, store, captions=table)
    moved = open_store(address, store.info)
    copy(store, moved)
    back = open_store(str(photos.parent / "back"), moved.info)
    copy(moved, back)
    before = {row.id: row for row in store.scan(vectors=True)}
    for copied in (moved, back):
        after = {row.id: row for row in copied.scan(vectors=True)}
        assert copied.count() == len(before) == 8
        assert copied.info == store.info
        assert copied.columns == store.columns
        for id, row in before.items():
            assert (row.path, row.mtime, row.caption, row.extra) == (
                after[id].path,
                after[id].mtime,
                after[id].caption,
                after[id].extra,
            )
            np.testing.assert_array_equal(row.vector, after[id].vector)
    moved.close()
