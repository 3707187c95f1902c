"""Pictures that lie elsewhere now: moved with their vectors, or forgotten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fake_model import INFO, FakeModel, gallery, paint
from unicross.errors import StoreError
from unicross.store import Store, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.index import index
from unicross.store.moved import forget_root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), INFO)


@pytest.fixture
def disk1(tmp_path: Path) -> Path:
    return gallery(tmp_path / "disk1")


def test_a_moved_folder_is_not_embedded_again(tmp_path: Path, store: Store, disk1: Path) -> None:
    model, archive = FakeModel(), EmbeddingArchive(tmp_path / "archive")
    captions = tmp_path / "c.csv"
    captions.write_text("image,caption,year\nred.png,a red one,1999\n")
    index(model, disk1, store, captions=captions, archive=archive)
    before = {
        Path(row.path).name: row.vector.tolist() for row in store.scan(vectors=True) if row.kind == "image"
    }
    disk2 = disk1.rename(tmp_path / "disk2")
    report = index(model, disk2, store, archive=archive)
    assert (report.moved, report.added, report.unchanged, model.pictures) == (6, 0, 0, 6)
    rows = list(store.scan(vectors=True))
    assert all(Path(row.path).is_relative_to(disk2) for row in rows)
    assert {Path(row.path).name: row.vector.tolist() for row in rows if row.kind == "image"} == before
    (red,) = (row for row in rows if row.kind == "image" and row.path.endswith("red.png"))
    assert (red.caption, red.extra) == ("a red one", {"year": 1999})
    assert [row.caption for row in rows if row.kind == "text"] == ["a red one"]
    assert store.info.roots == (str(disk2),)
    assert {row.path for part in archive.replay() for row in part} == {row.path for row in rows}
    assert index(model, disk2, store).unchanged == 6


def test_copies_and_other_pictures_are_embedded(tmp_path: Path, store: Store, disk1: Path) -> None:
    model = FakeModel()
    index(model, disk1, store)
    report = index(model, Path(shutil.copytree(disk1, tmp_path / "copy")), store)
    assert (report.moved, report.added) == (0, 6)  # the first ones are still there
    shutil.rmtree(disk1)
    paint(tmp_path / "other" / "red.png", "purple")
    assert index(model, tmp_path / "other", store).moved == 0


def test_moved_from_where_the_user_says(tmp_path: Path, store: Store, disk1: Path) -> None:
    model = FakeModel()
    index(model, disk1, store)
    disk2 = disk1.rename(tmp_path / "disk2")
    for path in disk2.rglob("*.*"):
        os.utime(path, (1, 1))  # copied without their times
    with pytest.raises(StoreError, match=r"no pictures of .*elsewhere.*it has those of .*disk1"):
        index(model, disk2, store, moved_from=tmp_path / "elsewhere")
    report = index(model, disk2, store, moved_from=disk1)
    assert (report.moved, report.added, model.pictures) == (6, 0, 6)


def test_a_folder_is_forgotten(tmp_path: Path, store: Store, disk1: Path) -> None:
    model, archive = FakeModel(), EmbeddingArchive(tmp_path / "archive")
    index(model, disk1, store, archive=archive)
    index(model, gallery(tmp_path / "kept"), store, archive=archive)
    shutil.rmtree(disk1)
    assert forget_root(store, archive, disk1) == 6
    assert store.count() == 6
    assert store.info.roots == archive.info.roots == (str(tmp_path / "kept"),)
    assert sum(len(part) for part in archive.replay()) == 6
    assert forget_root(store, archive, disk1) == 0
