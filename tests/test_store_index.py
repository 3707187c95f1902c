from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fake_model import INFO, FakeModel, gallery, paint, touch
from unicross.errors import StoreError
from unicross.store import Row, Store, open_store
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


def names(store: Store) -> list[str]:
    return sorted(Path(row.path).name for row in store.scan() if row.kind == "image")


def row_of(store: Store, name: str) -> Row:
    (row,) = [row for row in store.scan(vectors=True) if row.kind == "image" and row.path.endswith(name)]
    return row


def counts(report: object) -> tuple[int, ...]:
    return tuple(getattr(report, name) for name in ("added", "updated", "unchanged", "removed"))


def test_new_unchanged_changed_and_gone(model: FakeModel, store: Store, photos: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = index(model, photos, store, on_progress=lambda done, total: steps.append((done, total)))
    assert counts(report) == (6, 0, 0, 0)
    assert steps[-1] == (6, 6)
    assert row_of(store, "yellow.png").album == "a/deep"
    assert store.info.roots == (str(photos.resolve()),)

    assert counts(index(model, photos, store)) == (0, 0, 6, 0)
    assert model.pictures == 6  # nothing was embedded twice

    touch(paint(photos / "red.png", "purple"), 2_000_000_000)
    paint(photos / "c" / "orange.png", "orange")
    (photos / "b" / "black.bmp").unlink()
    assert counts(index(model, photos, store)) == (1, 1, 4, 0)
    assert model.pictures == 8
    np.testing.assert_allclose(row_of(store, "red.png").vector, model.encode_texts(["purple"])[0], atol=1e-6)
    assert "black.bmp" in names(store)

    assert counts(index(model, photos, store, prune=True)) == (0, 0, 6, 1)
    assert names(store) == ["blue.png", "green.jpg", "orange.png", "red.png", "white.png", "yellow.png"]


def test_unreadable_files_are_listed_and_tried_again(model: FakeModel, store: Store, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"nonsense")
    (photos / "empty.png").write_bytes(b"")
    report = index(model, photos, store)
    assert report.added == 6
    assert {Path(failure.path).name: failure.reason for failure in report.failed} == {
        "broken.jpg": "not an image, or of a kind that Pillow does not know: replace it or remove it",
        "empty.png": "the file is empty: replace it or remove it",
    }
    paint(photos / "empty.png", "purple")
    assert index(model, photos, store).added == 1


def test_captions_become_texts_and_user_columns(model: FakeModel, store: Store, photos: Path) -> None:
    table = photos.parent / "captions.csv"
    table.write_text(
        "image,caption,Photographer,year\n"
        "red.png,a red square,ann,2020\n"
        "red.png,all is red,ann,2020\n"
        "a/blue.png,a blue square,,2021\n"
        "missing.png,nothing,bob,2022\n"
    )
    report = index(model, photos, store, captions=table)
    assert report.added == 6 + 3
    (failure,) = report.failed
    assert failure.path == str(table)
    assert failure.reason.startswith("captions of 1 picture not in the folder")
    assert failure.reason.endswith("missing.png")
    assert row_of(store, "red.png").caption == "a red square"
    assert row_of(store, "red.png").extra == {"photographer": "ann", "year": 2020}
    texts = {row.caption: row for row in store.scan() if row.kind == "text"}
    assert texts["all is red"].path == str((photos / "red.png").resolve())
    assert texts["a blue square"].album == "a"

    assert counts(index(model, photos, store, captions=table)) == (0, 0, 9, 0)
    assert counts(index(model, photos, store)) == (0, 0, 6, 0)  # without the file, what was said stays

    table.write_text("image,caption,Photographer,year\nred.png,scarlet,cat,2020\n")
    embedded = model.pictures
    report = index(model, photos, store, captions=table, prune=True)
    assert model.pictures == embedded
    assert row_of(store, "red.png").caption == "scarlet"
    assert row_of(store, "red.png").extra == {"photographer": "cat", "year": 2020}
    assert {row.caption for row in store.scan() if row.kind == "text"} == {"scarlet"}
    assert (report.added, report.updated, report.removed) == (1, 1, 3)


def test_what_an_unreadable_folder_holds_is_not_pruned(
    model: FakeModel, store: Store, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(model, photos, store)
    listed = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "a":
            raise OSError(5, "Input/output error")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (photos / "b" / "black.bmp").unlink()
    report = index(model, photos, store, prune=True)
    assert report.removed == 1
    assert [failure.reason for failure in report.failed] == ["the folder cannot be read: Input/output error"]
    assert names(store) == ["blue.png", "green.jpg", "red.png", "white.png", "yellow.png"]


def test_pictures_of_every_usual_name_are_taken_or_told(model: FakeModel, store: Store, photos: Path) -> None:
    (photos / "phone.HEIC").write_bytes(b"ftypheic")
    paint(photos / "scan.jp2", "red")
    report = index(model, photos, store)
    assert report.added == 7
    assert [Path(failure.path).name for failure in report.failed] == ["phone.HEIC"]


def test_a_changed_picture_keeps_its_caption(model: FakeModel, store: Store, photos: Path) -> None:
    table = photos.parent / "captions.csv"
    table.write_text("image,caption\nred.png,what it was\n")
    index(model, photos, store, captions=table)
    touch(paint(photos / "red.png", "blue"), 2_000_000_000)
    index(model, photos, store)
    assert row_of(store, "red.png").caption == "what it was"


def test_a_file_of_columns_alone_leaves_captions_as_they_are(
    model: FakeModel, store: Store, photos: Path
) -> None:
    captions, columns = photos.parent / "captions.csv", photos.parent / "columns.csv"
    captions.write_text("image,caption,author\nred.png,what it was,Ann\n")
    columns.write_text("image,year\nred.png,1999\n")
    index(model, photos, store, captions=captions)
    before = store.count()
    report = index(model, photos, store, captions=columns, prune=True)
    row = row_of(store, "red.png")
    assert (row.caption, row.extra) == ("what it was", {"author": "Ann", "year": 1999})
    assert (report.updated, report.removed, store.count()) == (1, 0, before)


def test_two_folders_in_one_store_do_not_prune_each_other(
    model: FakeModel, store: Store, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    paint(other / "pink.png", (250, 100, 150))
    index(model, photos, store)
    index(model, other, store, prune=True)
    assert len(names(store)) == 7
    assert store.info.roots == (str(photos.resolve()), str(other.resolve()))


def test_an_empty_folder_does_not_empty_the_store(model: FakeModel, store: Store, photos: Path) -> None:
    index(model, photos, store)
    photos.rename(photos.with_name("away"))
    photos.mkdir()
    with pytest.raises(StoreError, match=r"6 of it: nothing was removed.*mounted"):
        index(model, photos, store, prune=True)
    assert store.count() == 6


def test_another_model_is_refused(store: Store, photos: Path) -> None:
    with pytest.raises(StoreError, match="filled by another model"):
        index(FakeModel("other"), photos, store)
