"""Pictures in tar shards, Parquet files and saved Arrow folders: read by index, where they lie."""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import tiny
from data_files import ids, picture
from unicross.data import columns, tar
from unicross.data.cache import LazyPixels, PixelCache
from unicross.data.items import Item
from unicross.data.reading import load_items
from unicross.errors import DataError
from unicross.training import train


def png(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 30, 30)).save(data, "PNG")
    return data.getvalue()


def write_tar(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, group: int = 2, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def write_saved(folder: Path, parts: Sequence[dict[str, Any]]) -> Path:
    """What `datasets.Dataset.save_to_disk` leaves."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        table = pa.table(part)
        with pa.ipc.new_stream(str(folder / name), table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def shades(items: Sequence[Item]) -> list[int | None]:
    """The red of each item's picture."""
    return [
        None if item.image is None else Image.open(io.BytesIO(item.image.read())).getpixel((0, 0))[0]
        for item in items
    ]


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestTar:
    def test_samples(self, tmp_path: Path) -> None:
        members: dict[str, bytes | str] = {
            "./a.jpg": png(1),
            "./a.txt": "one\n\n two \n",
            "./a.json": json.dumps({"caption": "not this"}),
            "deep/b.PNG": png(2),
            "deep/b.json": json.dumps({"captions": ["three", "four"]}),
            "c.webp": png(3),
            "c.json": json.dumps({"url": "x"}),
            "d.txt": "a text alone",
            "a.seg.png": png(9),
            ".hidden.jpg": png(9),
        }
        write_tar(tmp_path / "x" / "00.tar", members)
        items = load_items(tmp_path).items
        assert [(item.image_id, item.captions) for item in items] == [
            ("x/00/a", ("one", "two")),
            ("x/00/deep/b", ("three", "four")),
            ("x/00/c", ()),
            ("x/00/d", ("a text alone",)),
        ]
        assert shades(items) == [1, 2, 3, None]
        assert items[1].image is not None
        assert items[1].image.name == f"{tmp_path}/x/00.tar: deep/b"

    def test_long_names(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "0.tar", {f"{'n' * 300}.jpg": png(7), f"{'n' * 300}.txt": "long"})
        assert shades(load_items(tmp_path / "0.tar").items) == [7]

    def test_splits_by_folder_and_by_name(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "train" / "0.tar", {"a.jpg": png(1)})
        write_tar(tmp_path / "set-train-0001.tar", {"a.jpg": png(2)})
        write_tar(tmp_path / "val_00.tar", {"a.jpg": png(3)})
        assert ids(load_items(tmp_path, "train").items) == ["set-train-0001/a", "train/0/a"]
        assert shades(load_items(tmp_path, "dev").items) == [3]

    def test_the_index_is_made_once_and_anew_when_the_shard_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scans: list[Path] = []
        scan = tar._scan
        monkeypatch.setattr(tar, "_scan", lambda path, *rest: scans.append(path) or scan(path, *rest))
        shard = write_tar(tmp_path / "0.tar", {"a.jpg": png(1), "b.jpg": png(2)})
        for _ in range(3):
            assert shades(load_items(tmp_path).items) == [1, 2]
        assert scans == [shard]
        write_tar(shard, {"a.jpg": png(5), "b.jpg": png(6)})
        os.utime(shard, ns=(1, 1))
        assert shades(load_items(tmp_path).items) == [5, 6]
        assert len(scans) == 2
        (tmp_path / ".0.tar.index").write_bytes(b"half")
        assert shades(load_items(tmp_path).items) == [5, 6]
        assert len(scans) == 3

    def test_where_nothing_can_be_written_beside_the_index_goes_to_the_cache_folder(
        self, tmp_path: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = tar._write

        def refused(table: Any, place: Path) -> None:
            if no_cache not in place.parents:
                raise PermissionError(13, "read-only")
            write(table, place)

        monkeypatch.setattr(tar, "_write", refused)
        write_tar(tmp_path / "0.tar", {"a.jpg": png(1)})
        load_items(tmp_path)
        monkeypatch.setattr(tar, "_scan", lambda *_: pytest.fail("scanned again"))
        assert shades(load_items(tmp_path).items) == [1]
        assert len(list(no_cache.rglob("*.index"))) == 1

    @pytest.mark.parametrize("cut", [550, 1600, 3100])
    def test_a_shard_that_breaks_off(self, tmp_path: Path, cut: int) -> None:
        shard = write_tar(tmp_path / "0.tar", {f"{k}.jpg": png(k) for k in range(6)})
        shard.write_bytes(shard.read_bytes()[:cut])
        write_tar(tmp_path / "1.tar", {"z.jpg": png(9)})
        for _ in range(2):  # what is wrong is said each time
            with pytest.raises(DataError, match=r"1 damaged shard\n  .*0\.tar: damaged shard: .*download"):
                load_items(tmp_path)
        items = load_items(tmp_path, on_error="skip").items
        assert shades(items) == [*range(cut // 1024), 9]

    def test_a_shard_with_a_damaged_header(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path / "0.tar", {f"{k}.jpg": png(k) for k in range(3)})
        data = bytearray(shard.read_bytes())
        data[1024:1100] = b"\x01" * 76
        shard.write_bytes(data)
        with pytest.raises(DataError, match=r"not sound, after byte 1024"):
            load_items(tmp_path)
        assert shades(load_items(tmp_path, on_error="skip").items) == [0]
        shard.write_bytes(b"")
        with pytest.raises(DataError, match=r"damaged shard: .*empty file"):
            load_items(tmp_path)

    def test_bad_members(self, tmp_path: Path) -> None:
        members: dict[str, bytes | str] = {
            "a.jpg": png(1),
            "a.png": png(2),
            "b.jpg": png(3),
            "b.json": "{",
            "c.jpg": png(4),
            "c.txt": b"\xff\xfe\xfa",
            "d.txt": "",
            "e.json": "{}",
        }
        write_tar(tmp_path / "0.tar", members)
        loaded = load_items(tmp_path, on_error="skip")
        assert shades(loaded.items) == [1, 3, 4]
        assert [(p.kind, p.where.removeprefix(f"{tmp_path}/")) for p in loaded.problems] == [
            ("duplicate id", "0.tar: a"),
            ("bad line", "0.tar: b.json"),
            ("bad line", "0.tar: c.txt"),
            ("empty caption", "0.tar: d"),
            ("bad line", "0.tar: e"),
        ]

    def test_a_shard_that_changes_while_it_is_used(self, tmp_path: Path) -> None:
        shard = write_tar(tmp_path / "0.tar", {"a.jpg": png(1)})
        pixels = LazyPixels.build(load_items(tmp_path).items, 8, "squash", workers=1)
        pixels[[0]]
        write_tar(shard, {f"{k}.jpg": png(k) for k in range(30)})
        with pytest.raises(DataError, match=r"0\.tar: a: cannot be read: the shard changed"):
            pixels[[0]]
        shard.unlink()
        with pytest.raises(DataError, match=r"0\.tar: a: cannot be read: No such file"):
            pixels[[0]]


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
