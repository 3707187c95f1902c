"""The one walker of folders: its order, its links, what it leaves out and what it cannot read."""

import os
from pathlib import Path

import pytest

from data_files import write
from unicross.data.walk import walk


def names(root: Path) -> list[str]:
    """The walked files relative to the root; any error fails."""

    def fail(_: str, error: OSError) -> None:
        raise error

    return [Path(entry.path).relative_to(root).as_posix() for entry in walk(root, fail)]


def test_files_of_a_folder_come_before_those_of_its_folders_each_by_name(tmp_path: Path) -> None:
    for name in ("b/z", "b/a/y", "c", "a/x", "B", "10", "9"):
        write(tmp_path / name)
    assert names(tmp_path) == ["10", "9", "B", "c", "a/x", "b/z", "b/a/y"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in (".hidden", ".folder/a", "b/.c", "b/d"):
        write(tmp_path / name)
    assert names(tmp_path) == ["b/d"]


def test_no_folder_is_entered_twice(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "same").symlink_to(tmp_path / "real")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert names(tmp_path) == ["self", "real/a"]


def test_of_several_paths_to_a_folder_the_nearest_to_the_root_counts(tmp_path: Path) -> None:
    write(tmp_path / "val" / "a")
    write(tmp_path / "train" / "b")
    (tmp_path / "train" / "more").symlink_to(tmp_path / "val")
    assert names(tmp_path) == ["train/b", "val/a"]


def test_links_out_of_the_root_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root") == ["link/a"]


def test_what_cannot_be_read_is_reported_and_the_others_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x", "b/y"):
        write(tmp_path / name)
    scan = os.scandir

    def locked(folder: str) -> object:
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", locked)
    errors: list[tuple[str, OSError]] = []

    def collect(folder: str, error: OSError) -> None:
        errors.append((folder, error))

    assert [entry.name for entry in walk(tmp_path, collect)] == ["y"]
    assert list(walk(tmp_path / "gone", collect)) == []
    assert [(folder, type(error)) for folder, error in errors] == [
        (str(tmp_path / "a"), PermissionError),
        (str(tmp_path / "gone"), FileNotFoundError),
    ]
