"""The table of formats: which one is found in a folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_files import flickr, picture, write
from unicross.data.formats import FORMATS, check_takes
from unicross.data.load import load_items
from unicross.data.records import BY_NAME, SAID_AS, ReadOptions
from unicross.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return flickr(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load_items(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no data found\. Looked for\n.*token(.|\n)*dataset\*\.json"):
        load_items(tmp_path)


def test_several_captions_files_are_ambiguous(root: Path) -> None:
    write(root / "captions.csv", "image,caption", "a.jpg,another")
    with pytest.raises(
        DataError, match=r"several captions files(.|\n)*flickr:(.|\n)*table:(.|\n)*data\.format"
    ):
        load_items(root)
    assert load_items(root, format="table").items[0].captions == ("another",)
    assert len(load_items(root, "train", format="flickr").items) == 2


def test_a_named_format_reads_a_file_of_any_name(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    file = write(tmp_path / "mine.dat", "image,caption", "a.jpg,one")
    with pytest.raises(DataError, match="no data found"):
        load_items(file)
    assert load_items(file, format="table").items[0].captions == ("one",)


def test_a_format_that_is_not_there(root: Path) -> None:
    with pytest.raises(DataError, match="no data of format 'karpathy' found"):
        load_items(root, format="karpathy")


def test_captions_txt_without_a_header_is_a_text(tmp_path: Path) -> None:
    write(tmp_path / "captions.txt", "A dog.", "A cat.")
    assert load_items(tmp_path).items[0].captions == ("A dog.", "A cat.")


def test_a_name_that_is_no_format(root: Path) -> None:
    with pytest.raises(DataError, match=r"no data format 'zip': data\.format is one of flickr, karpathy, "):
        load_items(root, format="zip")


def test_what_was_looked_for_names_every_format(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_items(tmp_path)
    for name, kind in FORMATS.items():
        assert f"{name}:" in str(error.value)
        assert kind.looked_for in str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_what_means_nothing_to_a_format_is_refused(name: str, tmp_path: Path) -> None:
    takes = FORMATS[name].takes
    for field, key in SAID_AS.items():
        options = replace(BY_NAME, **{field: ("x",) if field in ("images", "captions") else "x"})
        if field in takes:
            check_takes(tmp_path, name, options)
        else:
            with pytest.raises(DataError, match=f"data.{key} says nothing about data of format '{name}'"):
                check_takes(tmp_path, name, options)


def test_a_folder_is_read_with_what_means_something_to_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "a file name")
    write(tmp_path / "a.json", '{"title": "a red wall"}')
    (item,) = load_items(tmp_path, options=ReadOptions(captions=("title",))).items
    assert item.captions == ("a red wall",)
    with pytest.raises(DataError, match=r"no KEY\.json has a field 'zz'"):
        load_items(tmp_path, options=ReadOptions(captions=("zz",)))
    with pytest.raises(DataError, match=r"data\.language says nothing about data of format 'folder'"):
        load_items(tmp_path, options=ReadOptions(language="en"))
