"""Pictures in Parquet files: read by row group, where they lie."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_files import ids, picture
from shard_files import CAPTIONS, PICTURES, png, shades, write_parquet, write_tar
from unicross.data.formats import parquet
from unicross.data.load import load_items
from unicross.data.pixels import LazyPixels, PixelCache
from unicross.errors import DataError


@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_embedded_pictures(tmp_path: Path, struct: bool, lists: bool) -> None:
    image: list[Any] = [{"bytes": p, "path": None} for p in PICTURES] if struct else PICTURES
    caption: list[Any] = [None if c is None else [c, f"{c}!"] for c in CAPTIONS] if lists else CAPTIONS
    write_parquet(tmp_path / "a.parquet", image=image, caption=caption)
    write_parquet(tmp_path / "b" / "c.parquet", image=image[:2], caption=caption[:2])
    items = load_items(tmp_path).items
    assert ids(items) == [f"a:{k}" for k in range(5)] + ["b/c:0", "b/c:1"]
    assert shades(items) == [1, 2, None, 4, 5, 1, 2]
    assert [item.captions[:1] for item in items[:5]] == [("one",), ("two",), ("three",), (), ("five",)]
    assert {len(item.captions) for item in items} == {0, 2 if lists else 1}


def test_only_the_row_group_of_a_picture_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", image=[png(k) for k in range(6)])
    items = load_items(tmp_path).items
    groups: list[int] = []
    read = parquet.ParquetPictures._group

    def counted(self: Any, number: int, group: int) -> Any:
        groups.append(group)
        return read(self, number, group)

    monkeypatch.setattr(parquet.ParquetPictures, "_group", counted)
    items = load_items(tmp_path).items
    assert shades([items[5], items[0], items[1], items[4]]) == [5, 0, 1, 4]
    assert groups == [2, 0]


def test_paths_of_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    write_parquet(tmp_path / "x.parquet", file_name=["a.png", "", "a.png"], text=["1", "2", "3"])
    items = load_items(tmp_path).items
    assert [(item.id, item.captions) for item in items] == [("a.png", ("1", "3")), ("x:1", ("2",))]
    assert shades(items) == [200, None]
    struct = [{"bytes": None, "path": str(tmp_path / "images" / "a.png")}]
    write_parquet(tmp_path / "x.parquet", image=struct, text=["1"])
    assert shades(load_items(tmp_path).items) == [200]
    write_parquet(tmp_path / "x.parquet", file_name=["gone.png"], text=["1"])
    with pytest.raises(DataError, match=r"x\.parquet: row 0: missing image: .*gone\.png: no such file"):
        load_items(tmp_path)


def test_ids_and_splits(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "x.parquet",
        image=PICTURES,
        caption=CAPTIONS,
        image_id=[7, 7, 8, None, 9],
        split=["train", "train", "val", "train", "val"],
    )
    items = load_items(tmp_path, "train").items
    assert [(item.id, item.captions) for item in items] == [("7", ("one", "two")), ("x:3", ())]
    assert shades(items) == [1, 4]
    assert ids(load_items(tmp_path, "val").items) == ["8", "9"]


def test_splits_by_name(tmp_path: Path) -> None:
    for name, shade in (("train-00000-of-00001", 1), ("test-00000-of-00001", 2)):
        write_parquet(tmp_path / "data" / f"{name}.parquet", image=[png(shade)], caption=["x"])
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert shades(load_items(tmp_path, "test").items) == [2]


def test_those_beside_shards_are_the_downloaders_notes(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", {"a.jpg": png(3)})
    write_parquet(tmp_path / "00000.parquet", url=["x"], caption=["y"])
    assert shades(load_items(tmp_path).items) == [3]


def test_damaged_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", image=[png(1)])
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"b\.parquet: damaged shard: cannot be read"):
        load_items(tmp_path)
    assert shades(load_items(tmp_path, on_error="skip").items) == [1]


def test_a_damaged_picture_is_found_when_it_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", image=[png(1), b"junk", png(3)])
    items = load_items(tmp_path).items
    with pytest.raises(DataError, match=r"a\.parquet: row 1: unreadable image: not an image"):
        PixelCache.build(items, 8, "squash")
    assert PixelCache.build(items, 8, "squash", on_error="skip").bad_images == [1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"height": [1]}, "no image and no caption column among height"),
        ({"image": [[1, 2]]}, "the column 'image' holds list"),
        ({"caption": [{"raw": "x"}]}, "the column 'caption' must hold texts"),
        ({"caption": [[{"raw": "x"}]]}, "the column 'caption' must hold texts or lists"),
        ({"caption": [[], ["x"]]}, "row 0: empty caption"),
        ({"caption": [[" "], ["x", None]]}, "2 empty captions"),
    ],
)
def test_columns_that_do_not_do(tmp_path: Path, table: dict[str, Any], message: str) -> None:
    write_parquet(tmp_path / "a.parquet", **table)
    with pytest.raises(DataError, match=message):
        load_items(tmp_path)


def test_random_access_in_any_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", image=[png(k) for k in range(40)], group=3)
    pixels = LazyPixels.build(load_items(tmp_path).items, 8, "squash", workers=4)
    asked = np.random.default_rng(0).permutation(40)
    assert pixels[asked][:, 0, 0, 0].tolist() == asked.tolist()
    assert pixels.select([30, 2])[[1, 0]][:, 0, 0, 0].tolist() == [2, 30]
