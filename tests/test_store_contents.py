"""Pictures that are known again by their content: no second forward, and never another picture's vector."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fake_model import INFO, FakeModel, gallery, paint, touch
from shard_files import png, write_tar
from unicross.store import Store, open_store
from unicross.store.archive import EmbeddingArchive, archive_of
from unicross.store.copy import rebuild
from unicross.store.index import IndexReport, index


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), INFO)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return gallery(tmp_path / "photos")


def run(model: FakeModel, folder: Path, store: Store, **options: Path | bool) -> IndexReport:
    """As the command line does, with the store's own archive."""
    return index(model, folder, store, archive=archive_of(store.address), **options)  # type: ignore[arg-type]


def assert_vectors_are_those_of_the_files(store: Store) -> None:
    """What embedding all files anew gives."""
    for row in store.scan(vectors=True):
        if row.kind == "image":
            path = Path(row.path)
            anew = open_store(str(path.parent.parent / f"anew-{row.id}-{random.random()}"), INFO)
            alone = path.parent.parent / f"alone-{row.id}" / path.name
            alone.parent.mkdir(exist_ok=True)
            shutil.copy(path, alone)
            index(FakeModel(), alone.parent, anew)
            (fresh,) = anew.scan(vectors=True)
            np.testing.assert_array_equal(row.vector, fresh.vector)
            shutil.rmtree(alone.parent)


def test_renamed_pictures_keep_vector_and_caption(tmp_path: Path, store: Store, photos: Path) -> None:
    model = FakeModel()
    captions = tmp_path / "c.csv"
    captions.write_text("image,caption,year\nred.png,a red one,1999\n")
    run(model, photos, store, captions=captions)
    (photos / "red.png").rename(photos / "a" / "holiday.png")
    touch(photos / "a" / "holiday.png", 5)
    report = run(model, photos, store, prune=True)
    assert (report.moved, report.added, report.removed, model.pictures) == (1, 0, 0, 6)
    rows = {(row.kind, Path(row.path).name): row for row in store.scan()}
    assert rows["image", "holiday.png"].extra == {"year": 1999}
    assert rows["text", "holiday.png"].caption == "a red one"
    assert ("image", "red.png") not in rows
    assert_vectors_are_those_of_the_files(store)


def test_another_disk_without_names_and_times(tmp_path: Path, store: Store, photos: Path) -> None:
    model = FakeModel()
    run(model, photos, store)
    disk = tmp_path / "disk"
    disk.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.*"))):
        shutil.copy(path, disk / f"IMG_{number}{path.suffix}")
    shutil.rmtree(photos)
    report = run(model, disk, store)
    assert (report.moved, report.added, report.known, model.pictures) == (6, 0, 0, 6)
    assert store.count() == 6
    assert store.info.roots == (str(disk),)
    assert_vectors_are_those_of_the_files(store)
    assert run(model, disk, store).unchanged == 6


def test_copies_and_touched_files_are_not_embedded(tmp_path: Path, store: Store, photos: Path) -> None:
    model = FakeModel()
    run(model, photos, store)
    copy = Path(shutil.copytree(photos, tmp_path / "copy"))
    report = run(model, copy, store)
    assert (report.known, report.moved, report.added, model.pictures) == (6, 0, 0, 6)
    assert store.count() == 12  # the first ones are still there
    touch(photos / "red.png", 7)
    report = run(model, photos, store)
    assert (report.known, report.updated, report.unchanged, model.pictures) == (1, 0, 5, 6)
    assert run(model, photos, store).unchanged == 6


def test_changed_content_is_embedded_whatever_else_is_the_same(store: Store, photos: Path) -> None:
    model = FakeModel()
    bmp = photos / "b" / "black.bmp"
    run(model, photos, store)
    before = os.stat(bmp)
    paint(bmp, "purple")
    assert bmp.stat().st_size == before.st_size
    touch(bmp, before.st_mtime + 1)
    report = run(model, photos, store)
    assert (report.known, report.updated, model.pictures) == (0, 1, 7)
    assert_vectors_are_those_of_the_files(store)


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_never_give_a_wrong_vector(
    seed: int, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swaps, copies, renames, rewrites and kills between archive and store."""
    rng = random.Random(seed)
    store = open_store(str(tmp_path / "store"), INFO)
    clock = 10
    for _ in range(8):
        for _ in range(3):
            one, other = rng.sample(sorted(path for path in photos.rglob("*.*") if path.is_file()), 2)
            clock += 1
            match rng.choice(["swap", "copy", "rename", "paint"]):
                case "swap":
                    one.rename(photos / "swapped")
                    other.rename(one)
                    (photos / "swapped").rename(other)
                    touch(one, clock)
                    touch(other, clock)
                case "copy":
                    shutil.copy(one, other)
                    touch(other, clock)
                case "rename":
                    one.rename(one.with_stem(f"n{clock}"))
                case "paint":
                    paint(one, rng.choice(["purple", "orange", "red"]))
                    touch(one, clock)
        if rng.random() < 0.4:
            with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
                patch.setattr(store, "upsert", _killed)
                run(FakeModel(), photos, store)
        run(FakeModel(), photos, store, prune=True)
    assert {row.path for row in store.scan()} == {str(p) for p in photos.rglob("*.*") if p.is_file()}
    assert_vectors_are_those_of_the_files(store)


def _killed(rows: object) -> None:
    del rows
    raise KeyboardInterrupt


def test_digests_outlive_captions_moves_and_rebuilding(tmp_path: Path, store: Store, photos: Path) -> None:
    model = FakeModel()
    run(model, photos, store)
    captions = tmp_path / "c.csv"
    captions.write_text("image,caption\n" + "".join(f"{p.name},x\n" for p in photos.rglob("*.*")))
    assert run(model, photos, store, captions=captions).updated == 6
    disk = photos.rename(tmp_path / "disk")
    assert run(model, disk, store).moved == 6
    again = open_store(str(tmp_path / "again"), INFO)
    rebuild(EmbeddingArchive(tmp_path / "store" / "embeddings"), again, archive_of(again.address))
    copy = Path(shutil.copytree(disk, tmp_path / "copy"))
    report = run(model, copy, again)
    assert (report.known, model.pictures) == (6, 6)


def test_a_shard_that_was_copied_stays(tmp_path: Path, store: Store) -> None:
    members: dict[str, bytes | str] = {"a.png": png(1), "a.txt": "one", "b.png": png(2), "b.txt": "two"}
    write_tar(tmp_path / "one" / "0.tar", members)
    model = FakeModel()
    run(model, tmp_path / "one", store)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    report = run(model, tmp_path / "two", store)
    assert (report.known, report.moved, model.pictures) == (2, 0, 2)
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "two").rename(tmp_path / "three")
    assert run(model, tmp_path / "three", store).moved == 2
    assert model.pictures == 2


def test_without_an_archive_or_digests_pictures_are_embedded(tmp_path: Path, photos: Path) -> None:
    model, store = FakeModel(), open_store(str(tmp_path / "store"), INFO)
    index(model, photos, store)
    touch(photos / "red.png", 7)
    assert run(model, photos, store).known == 0  # the archive got its rows from the store
    assert model.pictures == 7
