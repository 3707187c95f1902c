"""Usual names of columns and folders, and reading text."""

from pathlib import Path

import pytest

from data_files import picture
from unicross.data.formats.rows import ColumnNames, find_columns, find_image, image_folders, read_lines
from unicross.errors import DataError


def test_columns_are_known_by_their_usual_names_in_any_case() -> None:
    assert find_columns(["Sentence", " File_Name ", "SPLIT", "width"]) == ColumnNames(
        (" File_Name ",), ("Sentence",), "SPLIT"
    )
    assert find_columns(["text", "path", "caption", "image"]) == ColumnNames(("image",), ("caption",))
    assert find_columns(["image", "Image"]).images == ("image",)  # the first of two that are spelled alike


def test_an_image_is_looked_for_in_the_usual_folders_and_beside_the_file(tmp_path: Path) -> None:
    inside, beside = picture(tmp_path / "Images" / "a.png"), picture(tmp_path / "b.png")
    folders = image_folders(tmp_path)
    assert folders[-1] == tmp_path
    assert [find_image(name, folders) for name in ("a.png", "b.png")] == [inside, beside]
    assert find_image("gone.png", folders) == tmp_path / "Images" / "gone.png"
    assert find_image(str(beside), folders) == beside


def test_text_is_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes("\ufeffKäfer\n\nb\n".encode())
    assert read_lines(file) == ["Käfer", "", "b"]
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"x\.txt:1: not UTF-8 \(byte 0\): save it as UTF-8"):
        read_lines(file)
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read: No such file"):
        read_lines(tmp_path / "gone.txt")
