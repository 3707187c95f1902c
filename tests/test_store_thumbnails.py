"""Thumbnails that a store keeps: with their pictures from the first to the last, and never without them."""

from __future__ import annotations

import io
import shutil
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from fake_model import INFO, FakeModel, gallery, paint, touch
from layouts import LAYOUTS
from unicross.contact_sheet import render
from unicross.errors import StoreError
from unicross.store import Hit, Row, Store, open_store
from unicross.store.archive import EmbeddingArchive, archive_of
from unicross.store.copy import copy, rebuild
from unicross.store.index import IndexReport, index
from unicross.store.moved import forget_root
from unicross.store.thumbnails import FILE, Thumbnails, check_thumbnails

SIDE = 64


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures, one of them larger than a thumbnail and lying on its side."""
    folder = gallery(tmp_path / "photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 150), "green").save(folder / "a" / "green.jpg", exif=exif)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), INFO)


def run(photos: Path, store: Store, model: FakeModel | None = None, **options: object) -> IndexReport:
    return index(model or FakeModel(), photos, store, archive=archive_of(store.address), **options)


def images(store: Store) -> dict[str, Row]:
    return {Path(row.path).name: row for row in store.scan() if row.kind == "image"}


def shown(store: Store, row: Row) -> Image.Image | None:
    picture = store.thumbnails.picture(row)
    return None if picture is None else Image.open(io.BytesIO(picture.read()))


def colours(store: Store) -> dict[str, tuple[int, ...] | None]:
    """By the name of each stored picture, the rounded colour of its thumbnail."""
    kept = {name: shown(store, row) for name, row in images(store).items()}
    return {
        name: image and tuple(round(v / 50) for v in image.getpixel((3, 3))) for name, image in kept.items()
    }


def number(store: Store) -> int:
    about = store.thumbnails.about()
    return 0 if about is None else about["pictures"]


def test_each_embedded_picture_has_an_upright_jpeg(photos: Path, store: Store) -> None:
    (photos / "broken.jpg").write_bytes(b"nonsense")
    report = run(photos, store, thumbnails=SIDE)
    assert (report.added, report.thumbnails, len(report.failed)) == (6, 6, 1)
    small = shown(store, images(store)["green.jpg"])
    assert small is not None
    assert (small.format, small.size) == ("JPEG", (32, 64))
    assert colours(store)["red.png"] == (4, 1, 1)


def test_gaps_are_filled_without_embedding_again(photos: Path, store: Store) -> None:
    model = FakeModel()
    run(photos, store, model)
    assert number(store) == 0
    report = run(photos, store, model, thumbnails=SIDE)
    assert (report.thumbnails, report.unchanged, model.pictures) == (6, 6, 6)
    assert run(photos, store, model, thumbnails=SIDE).thumbnails == 0
    report = run(photos, store, model, thumbnails=128)  # another size: all of them anew
    assert (report.thumbnails, model.pictures) == (6, 6)
    assert shown(store, images(store)["green.jpg"]).size == (64, 128)


def test_a_store_that_keeps_them_goes_on_and_replaces_those_of_changed_pictures(
    photos: Path, store: Store
) -> None:
    run(photos, store, thumbnails=SIDE)
    touch(paint(photos / "red.png", "purple"), 2_000_000_000)
    paint(photos / "c" / "orange.png", "orange")
    assert run(photos, store).thumbnails == 2
    assert colours(store)["red.png"] == (3, 1, 3)
    assert colours(store)["orange.png"] == (5, 3, 1)


@pytest.mark.parametrize("way", ["prune", "forget", "delete"])
def test_they_are_deleted_with_their_pictures(way: str, photos: Path, store: Store) -> None:
    run(photos, store, thumbnails=SIDE)
    jpeg = store.thumbnails.picture(images(store)["green.jpg"]).read()
    (photos / "a" / "green.jpg").unlink()
    match way:
        case "prune":
            run(photos, store, prune=True)
        case "forget":
            forget_root(store, archive_of(store.address), photos / "a")
        case "delete":
            store.delete([images(store)["green.jpg"].id])
    assert number(store) == store.count()
    assert jpeg[-200:] not in (Path(store.address) / FILE).read_bytes()  # nor is it left in the file


def test_they_move_with_renamed_and_moved_pictures(photos: Path, store: Store) -> None:
    run(photos, store, thumbnails=SIDE)
    before = {name: store.thumbnails.picture(row).read() for name, row in images(store).items()}
    elsewhere = photos.parent / "elsewhere"
    shutil.move(photos, elsewhere)
    (elsewhere / "red.png").rename(elsewhere / "crimson.png")
    model = FakeModel()
    report = run(elsewhere, store, model)
    assert (report.moved, report.thumbnails, model.pictures) == (6, 0, 0)
    after = {name: store.thumbnails.picture(row).read() for name, row in images(store).items()}
    assert after.pop("crimson.png") == before.pop("red.png")
    assert after == before
    assert number(store) == 6


def test_a_copied_or_rebuilt_store_has_them_too(photos: Path, store: Store, tmp_path: Path) -> None:
    run(photos, store, thumbnails=SIDE)
    copied, rebuilt = (open_store(str(tmp_path / name), INFO) for name in ("copied", "rebuilt"))
    copy(store, copied)
    rebuild(EmbeddingArchive(Path(store.address) / "embeddings"), rebuilt)
    assert colours(copied) == colours(rebuilt) == colours(store)
    assert copied.thumbnails.side == SIDE


@pytest.mark.parametrize("name", ["shards", "parquet", "imagefolder"])
def test_whatever_is_indexed_has_them(name: str, tmp_path: Path, store: Store) -> None:
    LAYOUTS[name][1](tmp_path / "data")
    report = run(tmp_path / "data", store, thumbnails=SIDE)
    rows = [row for row in store.scan() if row.kind == "image"]
    assert [shown(store, row) is not None for row in rows] == 3 * [True]
    assert report.thumbnails == 3
    (Path(store.address) / FILE).unlink()
    assert run(tmp_path / "data", store, thumbnails=SIDE).thumbnails == 3  # and gaps are filled


def test_what_a_kill_left_is_never_shown_and_goes_at_the_next_run(photos: Path, store: Store) -> None:
    """A kill after thumbnails were written and before their rows were."""
    run(photos, store, thumbnails=SIDE)
    red, blue = images(store)["red.png"], images(store)["blue.png"]
    table = Path(store.address) / FILE
    with sqlite3.connect(table) as database:  # as of a row that never came, and of a change that never came
        database.execute("UPDATE thumbnails SET id = 'orphan' WHERE id = ?", (red.id,))
        database.execute("UPDATE thumbnails SET mtime = mtime + 1 WHERE id = ?", (blue.id,))
    assert shown(store, red) is shown(store, blue) is None
    assert run(photos, store).thumbnails == 2
    assert number(store) == 6
    assert None not in colours(store).values()


def test_links_out_of_the_folder_have_none(photos: Path, store: Store, tmp_path: Path) -> None:
    secret = paint(tmp_path / "outside" / "secret.png", "black")
    (photos / "link.png").symlink_to(secret)
    assert run(photos, store, thumbnails=SIDE).thumbnails == 6
    assert run(photos, store).thumbnails == 0
    assert shown(store, images(store)["link.png"]) is None


def test_a_picture_that_is_damaged_later_is_named(photos: Path, store: Store) -> None:
    run(photos, store)
    red = images(store)["red.png"]
    Path(red.path).write_bytes(b"x" * red.size)
    touch(Path(red.path), red.mtime)  # as a bad disk does
    report = run(photos, store, thumbnails=SIDE)
    assert report.thumbnails == 5
    assert [failure.reason.partition(",")[0] for failure in report.failed] == ["no thumbnail: not an image"]


def test_a_contact_sheet_shows_them_where_pictures_are_gone(photos: Path, store: Store) -> None:
    run(photos, store, thumbnails=SIDE)
    hits = [Hit(row, 0.5) for row in images(store).values()]
    shutil.rmtree(photos)
    assert render("hits", hits).count("cannot be read") == 6
    assert render("hits", hits, store).count("data:image/jpeg") == 6


@pytest.mark.parametrize(
    ("side", "address", "message"),
    [
        (0, "s", "thumbnails of 0 pixels: give 64 to 2048"),
        (5000, "s", "thumbnails of 5000 pixels"),
        (512, "http://localhost:19530/photos", "kept in the folder of a store"),
        (512, "photos.db/photos", "leave out --thumbnails, or give --store a folder"),
    ],
)
def test_nonsense_gets_a_sentence(side: int, address: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        check_thumbnails(side, address)


def test_a_damaged_file_gets_a_sentence_and_a_new_start(photos: Path, store: Store) -> None:
    run(photos, store, thumbnails=SIDE)
    file = Path(store.address) / FILE
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="remove it"):
        run(photos, store)
    file.unlink()
    assert run(photos, store, thumbnails=SIDE).thumbnails == 6


def test_a_change_that_fails_leaves_all_as_it_was(photos: Path, store: Store) -> None:
    run(photos, store, thumbnails=SIDE)
    rows = list(images(store).values())
    before = colours(store)

    def broken_off() -> object:
        yield rows[0], b"new"
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        Thumbnails(Path(store.address)).put(broken_off())
    assert colours(store) == before
