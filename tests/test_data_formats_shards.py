"""What sources of many pictures in few files share."""

import resource
from pathlib import Path

import pytest

import tiny
from shard_files import png, shades, write_parquet, write_saved, write_tar
from unicross.data.formats.shards import find_files, split_of
from unicross.data.load import load_items
from unicross.training import train


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
            assert bool(item.images)
            members[f"{number:03}.png"] = item.images[0].read()
            members[f"{number:03}.txt"] = "\n".join(item.captions)
        write_tar(tmp_path / "tar" / split / "0.tar", members)
        write_parquet(
            tmp_path / "parquet" / f"{split}.parquet",
            image=[item.images[0].read() for item in items if item.images],
            caption=[list(item.captions) for item in items],
        )
    metrics = []
    for kind in ("set", "tar", "parquet"):
        recipe = tiny.recipe(tmp_path / kind, tiny.ALIGN, data={"cache": "none"}, train={"batch_size": 4})
        metrics.append(train(recipe, tmp_path / "runs" / kind)["metrics"])
    assert metrics[0] == metrics[1] == metrics[2]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00004", "train"),
        ("x/val/0001", "val"),
        ("val/part_test_1", "test"),
        ("training/0001", None),
        ("0001", None),
    ],
)
def test_the_last_word_of_a_path_that_names_a_split_counts(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_files_are_found_in_all_folders_but_hidden_ones(tmp_path: Path) -> None:
    shown = [write_tar(tmp_path / name, {}) for name in ("b.tar", "a/c.tar", "a/b/d.tar")]
    for name in (".b.tar", ".hidden/e.tar", "f.tar.index"):
        write_tar(tmp_path / name, {})
    (tmp_path / "folder.tar").mkdir()
    assert find_files(tmp_path, ".tar") == sorted(shown)
    assert find_files(shown[0], ".tar") == [shown[0]]
    assert find_files(shown[0], ".parquet") == []
