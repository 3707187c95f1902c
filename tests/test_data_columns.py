"""Pictures in Parquet files and saved Arrow folders: read by index, where they lie."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tiny
from data_files import ids, picture
from shard_files import png, shades, write_parquet, write_saved, write_tar
from unicross.data import columns
from unicross.data.cache import LazyPixels, PixelCache
from unicross.data.reading import load_items
from unicross.errors import DataError
from unicross.training import train

PICTURES = [png(1), png(2), None, png(4), png(5)]
CAPTIONS = ["one", "two", "three", None, "five"]


class TestParquet:
    @pytest.mark.parametrize("struct", [False, True])
    @pytest.mark.parametrize("lists", [False, True])
    def test_embedded_pictures(self, tmp_path: Path, struct: bool, lists: bool) -> None:
        image: list[Any] = [{"bytes": p, "path": None} for p in PICTURES] if struct else PICTURES
        caption: list[Any] = [None if c is None else [c, f"{c}!"] for c in CAPTIONS] if lists else CAPTIONS
        write_parquet(tmp_path / "a.parquet", image=image, caption=caption)
        write_parquet(tmp_path / "b" / "c.parquet", image=image[:2], caption=caption[:2])
        items = load_items(tmp_path).items
        assert ids(items) == [f"a:{k}" for k in range(5)] + ["b/c:0", "b/c:1"]
        assert shades(items) == [1, 2, None, 4, 5, 1, 2]
        assert [item.captions[:1] for item in items[:5]] == [("one",), ("two",), ("three",), (), ("five",)]
        assert {len(item.captions) for item in items} == {0, 2 if lists else 1}

    def test_only_the_row_group_of_a_picture_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_parquet(tmp_path / "a.parquet", image=[png(k) for k in range(6)])
        items = load_items(tmp_path).items
        groups: list[int] = []
        read = columns.ParquetPictures._group

        def counted(self: Any, number: int, group: int) -> Any:
            groups.append(group)
            return read(self, number, group)

        monkeypatch.setattr(columns.ParquetPictures, "_group", counted)
        items = load_items(tmp_path).items
        assert shades([items[5], items[0], items[1], items[4]]) == [5, 0, 1, 4]
        assert groups == [2, 0]

    def test_paths_of_pictures(self, tmp_path: Path) -> None:
        picture(tmp_path / "images" / "a.png")
        write_parquet(tmp_path / "x.parquet", file_name=["a.png", "", "a.png"], text=["1", "2", "3"])
        items = load_items(tmp_path).items
        assert [(item.image_id, item.captions) for item in items] == [("a.png", ("1", "3")), ("x:1", ("2",))]
        assert shades(items) == [200, None]
        struct = [{"bytes": None, "path": str(tmp_path / "images" / "a.png")}]
        write_parquet(tmp_path / "x.parquet", image=struct, text=["1"])
        assert shades(load_items(tmp_path).items) == [200]
        write_parquet(tmp_path / "x.parquet", file_name=["gone.png"], text=["1"])
        with pytest.raises(DataError, match=r"x\.parquet: row 0: missing image: .*gone\.png: no such file"):
            load_items(tmp_path)

    def test_ids_and_splits(self, tmp_path: Path) -> None:
        write_parquet(
            tmp_path / "x.parquet",
            image=PICTURES,
            caption=CAPTIONS,
            image_id=[7, 7, 8, None, 9],
            split=["train", "train", "val", "train", "val"],
        )
        items = load_items(tmp_path, "train").items
        assert [(item.image_id, item.captions) for item in items] == [("7", ("one", "two")), ("x:3", ())]
        assert shades(items) == [1, 4]
        assert ids(load_items(tmp_path, "val").items) == ["8", "9"]

    def test_splits_by_name(self, tmp_path: Path) -> None:
        for name, shade in (("train-00000-of-00001", 1), ("test-00000-of-00001", 2)):
            write_parquet(tmp_path / "data" / f"{name}.parquet", image=[png(shade)], caption=["x"])
        (tmp_path / "dataset_infos.json").write_text("{}")
        assert shades(load_items(tmp_path, "test").items) == [2]

    def test_those_beside_shards_are_the_downloaders_notes(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "00000.tar", {"a.jpg": png(3)})
        write_parquet(tmp_path / "00000.parquet", url=["x"], caption=["y"])
        assert shades(load_items(tmp_path).items) == [3]

    def test_damaged_files(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", image=[png(1)])
        (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
        with pytest.raises(DataError, match=r"b\.parquet: damaged shard: cannot be read"):
            load_items(tmp_path)
        assert shades(load_items(tmp_path, on_error="skip").items) == [1]

    def test_a_damaged_picture_is_found_when_it_is_read(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "a.parquet", image=[png(1), b"junk", png(3)])
        items = load_items(tmp_path).items
        with pytest.raises(DataError, match=r"a\.parquet: row 1: unreadable image: not an image"):
            PixelCache.build(items, 8, "squash")
        assert PixelCache.build(items, 8, "squash", on_error="skip").bad_items == [1]

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
    def test_columns_that_do_not_do(self, tmp_path: Path, table: dict[str, Any], message: str) -> None:
        write_parquet(tmp_path / "a.parquet", **table)
        with pytest.raises(DataError, match=message):
            load_items(tmp_path)


class TestSaved:
    def test_a_folder_and_one_with_splits(self, tmp_path: Path) -> None:
        image = [{"bytes": p, "path": None} for p in PICTURES]
        parts: list[dict[str, Any]] = [
            {"image": image, "caption": CAPTIONS},
            {"image": image[:1], "caption": ["x"]},
        ]
        alone = write_saved(tmp_path / "alone", parts)
        items = load_items(alone).items
        assert shades(items) == [1, 2, None, 4, 5, 1]
        assert shades([items[5], items[3]]) == [1, 4]
        write_saved(tmp_path / "both" / "train", parts)
        write_saved(tmp_path / "both" / "test", parts[1:])
        (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        assert shades(load_items(tmp_path / "both", "test").items) == [1]
        assert len(load_items(tmp_path / "both", "train").items) == 6

    def test_damage(self, tmp_path: Path) -> None:
        root = write_saved(tmp_path / "x", [{"caption": ["a"]}, {"caption": ["b"]}])
        file = root / "data-00001-of-00002.arrow"
        file.write_bytes(file.read_bytes()[:40])
        with pytest.raises(DataError, match=r"00001-of-00002\.arrow: damaged shard"):
            load_items(root)
        assert len(load_items(root, on_error="skip").items) == 1
        (root / "state.json").write_text("{}")
        with pytest.raises(DataError, match="not a folder that `datasets` saved"):
            load_items(root)

    def test_as_datasets_writes_it(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        table = pa.table({"image": [{"bytes": png(k), "path": None} for k in range(3)], "text": list("abc")})
        datasets.disable_progress_bars()
        data = datasets.Dataset(table).select([2, 0])
        data.save_to_disk(tmp_path / "x")
        items = load_items(tmp_path / "x").items
        assert (shades(items), [item.captions for item in items]) == ([2, 0], [("c",), ("a",)])


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_more_files_than_may_be_open(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        for number in range(40):
            write_parquet(tmp_path / "x" / f"{number:02}.parquet", image=[png(number)])
    else:
        write_saved(tmp_path / "x", [{"image": [png(number)]} for number in range(40)])
    used = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        assert shades(load_items(tmp_path / "x").items) == list(range(40))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_equal_runs_from_files_and_from_shards(tmp_path: Path) -> None:
    """The same pictures and captions train the same weights, wherever they come from."""
    root = tiny.write_set(tmp_path / "set", train=12, val=4)
    found = {split: load_items(root, split).items for split in ("train", "val")}
    for split, items in found.items():
        members: dict[str, bytes | str] = {}
        for number, item in enumerate(items):
            assert item.image is not None
            members[f"{number:03}.png"] = item.image.read()
            members[f"{number:03}.txt"] = "\n".join(item.captions)
        write_tar(tmp_path / "tar" / split / "0.tar", members)
        write_parquet(
            tmp_path / "parquet" / f"{split}.parquet",
            image=[item.image.read() for item in items if item.image],
            caption=[list(item.captions) for item in items],
        )
    metrics = []
    for kind in ("set", "tar", "parquet"):
        recipe = tiny.recipe(tmp_path / kind, tiny.ALIGN, data={"cache": "none"}, train={"batch_size": 4})
        metrics.append(train(recipe, tmp_path / "runs" / kind)["metrics"])
    assert metrics[0] == metrics[1] == metrics[2]


def test_random_access_in_any_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", image=[png(k) for k in range(40)], group=3)
    pixels = LazyPixels.build(load_items(tmp_path).items, 8, "squash", workers=4)
    asked = np.random.default_rng(0).permutation(40)
    assert pixels[asked][:, 0, 0, 0].tolist() == asked.tolist()
    assert pixels.select([30, 2])[[1, 0]][:, 0, 0, 0].tolist() == [2, 30]
