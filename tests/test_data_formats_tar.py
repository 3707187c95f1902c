"""Pictures in tar shards: read by index, where they lie."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_files import ids
from shard_files import png, shades, write_tar
from unicross.data.formats import tar
from unicross.data.load import load_items
from unicross.data.pixels import LazyPixels
from unicross.data.records import ReadOptions
from unicross.errors import DataError


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_samples(tmp_path: Path) -> None:
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
    assert [(item.id, item.captions) for item in items] == [
        ("x/00/a", ("one", "two")),
        ("x/00/deep/b", ("three", "four")),
        ("x/00/c", ()),
        ("x/00/d", ("a text alone",)),
    ]
    assert shades(items) == [1, 2, 3, None]
    assert items[1].images[0] is not None
    assert items[1].images[0].name == f"{tmp_path}/x/00.tar: deep/b"


def test_long_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {f"{'n' * 300}.jpg": png(7), f"{'n' * 300}.txt": "long"})
    assert shades(load_items(tmp_path / "0.tar").items) == [7]


def test_names_and_texts_that_are_no_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff")
    write_tar(tmp_path / "0.tar", {f"{name}.jpg": png(7), f"{name}.json": '{"caption": "\\ud83d"}'})
    for _ in range(2):
        (item,) = load_items(tmp_path).items
        assert (item.id, item.captions) == ("0/\\udcff", ("\\ud83d",))
        assert shades([item]) == [7]


def test_splits_by_folder_and_by_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "0.tar", {"a.jpg": png(1)})
    write_tar(tmp_path / "set-train-0001.tar", {"a.jpg": png(2)})
    write_tar(tmp_path / "val_00.tar", {"a.jpg": png(3)})
    assert ids(load_items(tmp_path, "train").items) == ["set-train-0001/a", "train/0/a"]
    assert shades(load_items(tmp_path, "dev").items) == [3]


def test_the_index_is_made_once_and_anew_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[Path] = []
    scan = tar.scan_shard
    monkeypatch.setattr(tar, "scan_shard", lambda path, *rest: scans.append(path) or scan(path, *rest))
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
    tmp_path: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = tar._write

    def refused(table: Any, place: Path) -> None:
        if no_cache not in place.parents:
            raise PermissionError(13, "read-only")
        write(table, place)

    monkeypatch.setattr(tar, "_write", refused)
    write_tar(tmp_path / "0.tar", {"a.jpg": png(1)})
    load_items(tmp_path)
    monkeypatch.setattr(tar, "scan_shard", lambda *_: pytest.fail("scanned again"))
    assert shades(load_items(tmp_path).items) == [1]
    assert len(list(no_cache.rglob("*.index"))) == 1


@pytest.mark.parametrize("cut", [550, 1600, 3100])
def test_a_shard_that_breaks_off(tmp_path: Path, cut: int) -> None:
    shard = write_tar(tmp_path / "0.tar", {f"{k}.jpg": png(k) for k in range(6)})
    shard.write_bytes(shard.read_bytes()[:cut])
    write_tar(tmp_path / "1.tar", {"z.jpg": png(9)})
    for _ in range(2):  # what is wrong is said each time
        with pytest.raises(DataError, match=r"1 damaged shard\n  .*0\.tar: damaged shard: .*download"):
            load_items(tmp_path)
    items = load_items(tmp_path, on_error="skip").items
    assert shades(items) == [*range(cut // 1024), 9]


def test_a_shard_with_a_damaged_header(tmp_path: Path) -> None:
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


def test_bad_members(tmp_path: Path) -> None:
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


def test_a_shard_that_changes_while_it_is_used(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", {"a.jpg": png(1)})
    pixels = LazyPixels.build(load_items(tmp_path).items, 8, "squash", workers=1)
    pixels[[0]]
    write_tar(shard, {f"{k}.jpg": png(k) for k in range(30)})
    with pytest.raises(DataError, match=r"0\.tar: a: cannot be read: the shard changed"):
        pixels[[0]]
    shard.unlink()
    with pytest.raises(DataError, match=r"0\.tar: a: cannot be read: No such file"):
        pixels[[0]]


def test_fields_that_are_named_are_those_of_the_json_members(tmp_path: Path) -> None:
    members = {"a.jpg": png(1), "a.txt": "a file name", "a.json": '{"title": "a red wall"}', "b.jpg": png(2)}
    write_tar(tmp_path / "0.tar", members)
    loaded = load_items(tmp_path, options=ReadOptions(captions=("title",)))
    assert [item.captions for item in loaded.items] == [("a red wall",), ()]
    assert any("1 .txt" in problem.what for problem in loaded.problems)
    with pytest.raises(DataError, match=r"no KEY.json has a field 'zz' \(data.caption\)"):
        load_items(tmp_path, options=ReadOptions(captions=("zz",)))
