"""Folders of images and texts."""

from pathlib import Path

from data_files import ids, picture, write
from unicross.data.load import load_items


def test_pairs_images_only_and_texts_only(tmp_path: Path) -> None:
    picture(tmp_path / "sub" / "a.JPG")
    write(tmp_path / "sub" / "a.txt", "one", "", "two")
    picture(tmp_path / "b.png")
    write(tmp_path / "c.txt", "three")
    picture(tmp_path / ".hidden" / "d.png")
    picture(tmp_path / "._b.png")
    assert {(item.id, not item.images, item.captions) for item in load_items(tmp_path).items} == {
        ("b.png", False, ()),
        ("c.txt", True, ("three",)),
        ("sub/a.JPG", False, ("one", "two")),
    }


def test_first_level_folders_are_splits(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "x" / "a.png")
    picture(tmp_path / "val" / "a.png")
    picture(tmp_path / "other" / "a.png")
    assert ids(load_items(tmp_path, "train").items) == ["train/x/a.png"]
    assert ids(load_items(tmp_path, "val").items) == ["val/a.png"]
    assert len(load_items(tmp_path).items) == 3


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    picture(tmp_path / "real" / "a.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    assert ids(load_items(root).items) == ["link/a.png"]
