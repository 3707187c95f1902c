"""What a folder and its captions file stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_model import gallery, paint
from unicross.errors import DataError
from unicross.store import Row
from unicross.store.catalog import Catalog, read_catalog


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return gallery(tmp_path / "photos")


def image(catalog: Catalog, name: str) -> Row:
    (row,) = [row for row in catalog.images.values() if row.path.endswith(name)]
    return row


def texts(catalog: Catalog) -> dict[str, str]:
    """Captions of text rows, with the names of their pictures."""
    return {row.caption: Path(row.path).name for row in (catalog.texts or {}).values()}


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
def test_captions_are_read_as_training_reads_them(photos: Path, name: str, text: str) -> None:
    table = photos.parent / name
    table.write_text(text)
    catalog = read_catalog(photos, table)
    assert catalog.failures == ()
    assert image(catalog, "red.png").caption == "a red square"
    assert texts(catalog) == {"a red square": "red.png"}


def test_odd_cells_of_jsonl(photos: Path) -> None:
    table = photos.parent / "captions.jsonl"
    table.write_text(
        '{"image": "red.png", "caption": ["one\u2028line", "half a pair \\ud83d"], '
        '"number": 9223372036854775808}\n'
    )
    catalog = read_catalog(photos, table)
    assert texts(catalog).keys() == {"one\u2028line", "half a pair \\ud83d"}
    assert image(catalog, "red.png").extra == {"number": "9223372036854775808"}


def test_columns_named_as_built_in_ones_get_another_name(photos: Path) -> None:
    table = photos.parent / "captions.csv"
    table.write_text("image,caption,Size,album,vector\nred.png,a red square,XL,summer,1\n")
    assert image(read_catalog(photos, table), "red.png").extra == {
        "size_": "XL",
        "album_": "summer",
        "vector_": 1,
    }


def test_a_caption_goes_to_no_other_folders_picture(photos: Path) -> None:
    paint(photos / "cats" / "001.png", "red")
    paint(photos / "birds" / "002.png", "red")
    table = photos.parent / "captions.csv"
    table.write_text(
        "image,caption\ndogs/001.png,a dog\n/archive/photos/birds/002.png,a bird\n003.png,gone\n"
    )
    catalog = read_catalog(photos, table)
    (failure,) = catalog.failures
    assert failure.reason.endswith("several have: 003.png, dogs/001.png")
    assert image(catalog, "cats/001.png").caption == ""
    assert image(catalog, "birds/002.png").caption == "a bird"  # named from further up
    assert catalog.captioned == {image(catalog, "birds/002.png").id}


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
def test_a_wrong_captions_file_gets_a_sentence(photos: Path, name: str, text: str, message: str) -> None:
    (photos / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_catalog(photos, photos / name)


def test_a_missing_captions_file_gets_a_sentence(photos: Path) -> None:
    with pytest.raises(DataError, match="captions file not found"):
        read_catalog(photos, photos / "missing.csv")


def test_texts_only_and_flickr_tokens(photos: Path) -> None:
    tokens = photos.parent / "x.token.txt"
    tokens.write_text("red.png#0\tred at dawn\nred.png#1\tred at dusk\n")
    assert texts(read_catalog(photos, tokens)) == {"red at dawn": "red.png", "red at dusk": "red.png"}
    lines = photos.parent / "lines.txt"
    lines.write_text("a blue day\n\na green hill\n")
    assert texts(read_catalog(photos, lines)) == {"a blue day": "", "a green hill": ""}
    assert read_catalog(photos, None).texts is None
