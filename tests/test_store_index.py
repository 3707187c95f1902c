from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fake_model import FakeModel, gallery, paint, touch
from unicross.errors import DataError, StoreError
from unicross.store import Row, Store, StoreInfo, open_store
from unicross.store.archive import EmbeddingArchive, archive_of
from unicross.store.bulk import embed_folder
from unicross.store.copy import copy, rebuild
from unicross.store.index import index


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def store(tmp_path: Path, model: FakeModel) -> Store:
    return open_store(
        str(tmp_path / "store"), StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16)
    )


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
    assert failure.reason.startswith("captions of 1 pictures that are not in the folder")
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", "image_path,caption\nred.png,a red square\n"),
        ("captions.csv", "image;caption\nred.png;a red square\n"),
        ("results.csv", "image_name| comment_number| comment\nred.png| 0| a red square\n"),
        ("captions.txt", "image,caption\nred.png,a red square\n"),
        ("captions.jsonl", '{"image": "red.png", "captions": ["a red square"]}\n'),
    ],
)
def test_captions_are_read_as_training_reads_them(
    model: FakeModel, store: Store, photos: Path, name: str, text: str
) -> None:
    table = photos.parent / name
    table.write_text(text)
    assert index(model, photos, store, captions=table).failed == []
    assert row_of(store, "red.png").caption == "a red square"
    assert [row.caption for row in store.scan() if row.kind == "text"] == ["a red square"]


def test_odd_cells_of_jsonl(model: FakeModel, store: Store, photos: Path) -> None:
    table = photos.parent / "captions.jsonl"
    table.write_text(
        '{"image": "red.png", "caption": ["one\u2028line", "half a pair \\ud83d"], '
        '"number": 9223372036854775808}\n'
    )
    index(model, photos, store, captions=table)
    assert {row.caption for row in store.scan() if row.kind == "text"} == {
        "one\u2028line",
        "half a pair \\ud83d",
    }
    assert row_of(store, "red.png").extra == {"number": "9223372036854775808"}


def test_a_caption_goes_to_no_other_folders_picture(model: FakeModel, store: Store, photos: Path) -> None:
    paint(photos / "cats" / "001.png", "red")
    paint(photos / "birds" / "002.png", "red")
    table = photos.parent / "captions.csv"
    table.write_text(
        "image,caption\ndogs/001.png,a dog\n/archive/photos/birds/002.png,a bird\n003.png,gone\n"
    )
    (failure,) = index(model, photos, store, captions=table).failed
    assert failure.reason.endswith("several have: 003.png, dogs/001.png")
    assert row_of(store, "cats/001.png").caption == ""
    assert row_of(store, "birds/002.png").caption == "a bird"  # named from further up


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


def test_two_folders_kept_in_one_place(model: FakeModel, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    paint(other / "pink.png", (250, 100, 150))
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16)
    for folder in (photos, other):
        embed_folder(model, info, folder, tmp_path / "kept", captions=None, on_progress=lambda *_: None)
    kept = EmbeddingArchive(tmp_path / "kept")
    assert kept.info.roots == (str(photos.resolve()), str(other.resolve()))
    assert sum(map(len, kept.replay())) == 7


def test_a_store_made_of_another_keeps_its_embeddings_too(
    model: FakeModel, store: Store, photos: Path, tmp_path: Path
) -> None:
    index(model, photos, store)
    again = open_store(str(tmp_path / "again"), store.info)
    copy(store, again, archive_of(again.address))
    paint(photos / "new.png", "purple")
    index(model, photos, again, archive=archive_of(again.address))
    kept = archive_of(again.address)
    assert kept is not None
    assert {row.id for rows in kept.replay() for row in rows} == {row.id for row in again.scan()}
    assert kept.info == again.info


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


def test_a_store_is_rebuilt_from_what_was_kept(model: FakeModel, store: Store, photos: Path) -> None:
    kept = photos.parent / "kept"
    table = photos.parent / "captions.csv"
    table.write_text("image,caption,year\nred.png,a red square,2020\nb/white.png,white,2021\n")
    index(model, photos, store, captions=table, archive=EmbeddingArchive(kept))
    touch(paint(photos / "red.png", "purple"), 2_000_000_000)
    (photos / "b" / "white.png").unlink()
    index(model, photos, store, prune=True, archive=EmbeddingArchive(kept))
    rebuilt = open_store(str(photos.parent / "again"), EmbeddingArchive(kept).info)
    rebuild(EmbeddingArchive(kept), rebuilt)
    assert rebuilt.info == store.info
    before = {row.id: row for row in store.scan(vectors=True)}
    after = {row.id: row for row in rebuilt.scan(vectors=True)}
    assert before.keys() == after.keys()
    for id, row in before.items():
        assert (row.path, row.caption, row.extra) == (after[id].path, after[id].caption, after[id].extra)
        np.testing.assert_array_equal(row.vector, after[id].vector)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", 'image,caption\n"a,b\n', "quotes do not match"),
        ("c.csv", "picture,words\na,b\n", "no image and no caption column"),
        ("c.csv", "image,caption\na,b,c\n", "c.csv:2: bad line: 3 cells, the header has 2"),
        ("c.jsonl", '{"image": "a"}\nnonsense\n', "c.jsonl:2: bad line: not JSON"),
        ("c.jsonl", '[1]\n{"image": "a"}\n', "c.jsonl:1: bad line: not a JSON object"),
        ("c.txt", "a.jpg#0\tgood\nbad line\n", "c.txt:2: not of the form"),
        ("c.xlsx", "", "are read from .csv"),
        ("c.csv", "image,caption,1 bad\na,b,c\n", "user column is named"),
    ],
)
def test_a_wrong_captions_file_gets_a_sentence(
    model: FakeModel, store: Store, photos: Path, name: str, text: str, message: str
) -> None:
    (photos / name).write_text(text)
    with pytest.raises(DataError, match=message):
        index(model, photos, store, captions=photos / name)


def test_a_missing_captions_file_gets_a_sentence(model: FakeModel, store: Store, photos: Path) -> None:
    with pytest.raises(DataError, match="captions file not found"):
        index(model, photos, store, captions=photos / "missing.csv")


def test_texts_alone_and_flickr_tokens(model: FakeModel, store: Store, photos: Path) -> None:
    tokens = photos.parent / "x.token.txt"
    tokens.write_text("red.png#0\tred at dawn\nred.png#1\tred at dusk\n")
    index(model, photos, store, captions=tokens)
    lines = photos.parent / "lines.txt"
    lines.write_text("a blue day\n\na green hill\n")
    index(model, photos, store, captions=lines)
    texts = {row.caption: Path(row.path).name for row in store.scan() if row.kind == "text"}
    assert texts == {"red at dawn": "red.png", "red at dusk": "red.png", "a blue day": "", "a green hill": ""}


def test_what_was_kept_belongs_to_one_model(model: FakeModel, store: Store, photos: Path) -> None:
    kept = photos.parent / "kept"
    index(model, photos, store, archive=EmbeddingArchive(kept))
    other = open_store(str(photos.parent / "other"), StoreInfo(fingerprint="other-1", checkpoint="m", dim=16))
    with pytest.raises(StoreError, match="filled by another model"):
        index(FakeModel("other"), photos, other, archive=EmbeddingArchive(kept))
    with pytest.raises(StoreError, match="filled by another model"):
        rebuild(EmbeddingArchive(kept), other)
    with pytest.raises(StoreError, match="holds no archive of embeddings"):
        rebuild(EmbeddingArchive(photos), other)


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
    there = open_store(address, store.info)
    copy(store, there)
    back = open_store(str(photos.parent / "back"), there.info)
    copy(there, back)
    before = {row.id: row for row in store.scan(vectors=True)}
    for moved in (there, back):
        after = {row.id: row for row in moved.scan(vectors=True)}
        assert moved.count() == len(before) == 8
        assert moved.info == store.info
        assert moved.columns == store.columns
        for id, row in before.items():
            assert (row.path, row.mtime, row.caption, row.extra) == (
                after[id].path,
                after[id].mtime,
                after[id].caption,
                after[id].extra,
            )
            np.testing.assert_array_equal(row.vector, after[id].vector)
    there.close()
