"""Items as columns: the same items, some of them, and what they are in short."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_files import picture
from shard_files import png, write_parquet
from unicross.data.image_source import Files, ImageFile
from unicross.data.items import Item, Items, strings
from unicross.data.load import load_items

TEXTS = st.lists(st.text(max_size=5), max_size=3).map(tuple)


def made(captions: Sequence[tuple[str, ...]]) -> list[Item]:
    return [
        Item(str(n), tuple(ImageFile(Path(f"{n}-{k}.png")) for k in range(n % 3 if texts else 1)), texts)
        for n, texts in enumerate(captions)
    ]


@given(st.lists(TEXTS, max_size=6), st.data())
def test_columns_are_the_items(captions: list[tuple[str, ...]], data: st.DataObject) -> None:
    items = made(captions)
    columns = Items.of(items)
    assert list(columns) == items
    assert columns.has_image.tolist() == [bool(item.images) for item in items]
    assert columns.has_text.tolist() == [bool(item.captions) for item in items]
    chosen = data.draw(st.lists(st.sampled_from(range(len(items))), max_size=8)) if items else []
    some = columns.select(chosen)
    assert list(some) == [items[n] for n in chosen]
    assert list(some.select(range(len(chosen))[::-1])) == [items[n] for n in chosen[::-1]]
    assert list(columns[1::2]) == items[1::2]
    assert Items.of(columns) is columns


def test_an_item_is_found_by_its_id() -> None:
    items = made([("a",), (), ("b", "c")])
    assert Items.of(items).find("2") == items[2]
    assert Items.of(items).find("3") is None


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    paths = [tmp_path / os.fsdecode(b"\xff.png"), tmp_path / os.fsdecode(b"\xfe.png")]
    for path in paths:
        picture(path)
    items = load_items(tmp_path).items
    assert {item.images[0].path for item in items if isinstance(item.images[0], ImageFile)} == set(paths)
    assert {item.id for item in items} == {"\\udcff.png", "\\udcfe.png"}
    assert Files(paths)[1].read() == paths[1].read_bytes()
    assert strings(["\ud83d a"])[0].as_py() == "\\ud83d a"


class TestDigest:
    def test_of_equal_items_however_they_came_about(self) -> None:
        items = made([("a", "b"), (), ("c",), ("d",)])
        assert Items.of(items)[1:3].digest() == Items.of(items[1:3]).digest()
        assert Items.of([]).digest()["number"] == "0"

    @pytest.mark.parametrize(
        ("captions", "differs"),
        [
            ([("a",), ("bc",)], {"captions"}),
            ([("a", "b"), ("c",)], {"captions"}),
            ([("a",), ("b", "d")], {"captions"}),
            ([("a",), (), ("b", "c")], {"number", "ids", "captions", "pictures"}),
        ],
    )
    def test_of_other_items(self, captions: list[tuple[str, ...]], differs: set[str]) -> None:
        one, other = (Items.of(made(texts)).digest() for texts in ([("a",), ("b", "c")], captions))
        assert {key for key in one if one[key] != other[key]} == differs

    def test_only_the_pictures_of_the_items_count(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            write_parquet(tmp_path / f"{split}.parquet", image=[png(1)], caption=["x"])
        before = load_items(tmp_path, "train").items.digest()
        write_parquet(tmp_path / "val.parquet", image=[png(1)] * 9, caption=["x"] * 9)
        os.utime(tmp_path / "train.parquet", ns=(1, 1))
        assert load_items(tmp_path, "train").items.digest() == before
        write_parquet(tmp_path / "train.parquet", image=[png(1) + b"more"], caption=["x"])
        after = load_items(tmp_path, "train").items.digest()
        assert {key for key in before if before[key] != after[key]} == {"pictures"}
