"""CSV, TSV and JSONL: what becomes an item, its captions, id and split."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_files import ids, image_path, picture, write
from unicross.data.image_source import ImageFile
from unicross.data.items import Item
from unicross.data.load import load_items
from unicross.errors import DataError


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("captions.txt", ["image,caption", 'a.jpg,"One, two ."', "a.jpg,Three ."]),
        ("x.csv", ["split;Caption;File_Name", "train;One, two .;a.jpg", "train;Three .;a.jpg"]),
        ("x.tsv", ["text\tpath", "One, two .\ta.jpg", "Three .\ta.jpg"]),
        ("x.tsv", ["text\tpath", '"One, two ."\ta.jpg', "Three .\ta.jpg"]),
        (
            "results.csv",
            ["image_name| comment_number| comment", "a.jpg| 0| One, two .", "a.jpg| 1| Three ."],
        ),
        ("x.jsonl", ['{"image": "a.jpg", "captions": ["One, two .", " Three ."]}']),
        (
            "x.jsonl",
            ['{"image": "a.jpg", "text": "One, two ."}', "", '{"image": "a.jpg", "text": "Three ."}'],
        ),
    ],
)
def test_kinds_of_tables(tmp_path: Path, name: str, lines: list[str]) -> None:
    picture(tmp_path / "Images" / "a.jpg")
    file = write(tmp_path / name, *lines)
    for root in (tmp_path, file):
        (item,) = load_items(root).items
        assert item == Item("a.jpg", (ImageFile(tmp_path / "Images" / "a.jpg"),), ("One, two .", "Three ."))


def test_bare_quotes_in_a_tsv_are_text(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "x.tsv", "text\timage", '"Stop" says a sign\ta.jpg', 'an open "quote\ta.jpg')
    assert load_items(tmp_path).items[0].captions == ('"Stop" says a sign', 'an open "quote')


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfimage,caption\r\na.jpg,One\r\na.jpg,Two\r\n")
    assert load_items(tmp_path).items[0].captions == ("One", "Two")


def test_splits_and_ids_from_columns(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    write(
        tmp_path / "x.csv",
        "image_id,image,caption,split",
        "7,a.png,one,train",
        "7,a.png,two,train",
        "8,b.png,three,val",
    )
    train = load_items(tmp_path, "train").items
    assert ids(train) == ["7"]
    assert train[0].captions == ("one", "two")
    assert ids(load_items(tmp_path, "dev").items) == ["8"]


def test_texts_only_are_grouped_by_id_only(tmp_path: Path) -> None:
    grouped = write(tmp_path / "x.csv", "image_id,image,text", "1,,one", "1,,two", "2,,three")
    assert [item.captions for item in load_items(grouped).items] == [("one", "two"), ("three",)]
    alone = write(tmp_path / "y.csv", "text,other", "one,", "one,")
    items = load_items(alone).items
    assert [item.captions for item in items] == [("one",), ("one",)]
    assert len(set(ids(items))) == 2
    assert all(not item.images and not item.is_pair for item in items)


def test_a_row_without_image_may_add_a_caption_by_its_id(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "x.csv", "image_id,image,text", "1,,one", "1,a.png,two")
    (item,) = load_items(tmp_path).items
    assert item.captions == ("one", "two")
    assert image_path(item) == tmp_path / "a.png"


def test_images_only_where_there_is_no_caption_column(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "x.csv", "image,size", "a.png,3")
    assert list(load_items(tmp_path).items) == [Item("a.png", (ImageFile(tmp_path / "a.png"),), ())]


def test_no_known_column(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "a.jpg,A dog", "b.jpg,A cat")
    with pytest.raises(DataError, match=r"no image and no caption column among a\.jpg, A dog.*first line"):
        load_items(file)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,caption", '"a.jpg"x,One'], "quotes do not match"),
        (["image,caption,caption", "a.jpg,One,Two"], "two columns are called 'caption'"),
        (["image,caption"], "no rows that can be read"),
        ([], "no rows that can be read"),
    ],
)
def test_broken_tables(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_items(write(tmp_path / "x.csv", *lines))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("image,caption\na.jpg,Käfer".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 .*save it as UTF-8"):
        load_items(tmp_path)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
def test_any_caption_survives_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    root = tmp_path_factory.mktemp("csv")
    with (root / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image_id", "caption"], *(["1", f"<{text}>"] for text in texts)])
    wanted = [f"<{text}>".replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert list(load_items(root).items[0].captions) == wanted


def test_a_json_record_without_a_caption_is_an_image_alone(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    lines = [
        '{"image": "a.png", "caption": ["a dog", "a hound"]}',
        '{"image": "b.png"}',
        '{"caption": "a cat"}',
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    items = load_items(tmp_path / "items.jsonl").items
    assert [(bool(item.images), item.captions) for item in items] == [
        (True, ("a dog", "a hound")),
        (True, ()),
        (False, ("a cat",)),
    ]
