"""The guide's table of layouts, cell by cell: each trains and is indexed, and its wrong versions are said."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from fake_model import INFO, FakeModel
from layouts import CAPTIONS, LAYOUTS
from unicross.data.load import load_items, survey
from unicross.errors import DataError
from unicross.store import open_store
from unicross.store.index import index
from unicross.store.sources import Reading
from unicross.training import train

TEXT_FILES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".token")
PICTURES_ONLY = {"texts_beside", "images_and_captions", "img2dataset_files"}
"""Layouts of which `index` takes the pictures, and says that it leaves the captions, unless it is told the
format."""
BY_FILE = {
    "flickr8k": "Flickr8k.token.txt",
    "karpathy_json": "dataset_flickr8k.json",
    "csv_table": "captions.csv",
    "semicolons_with_a_mark": "c.csv",
    "kaggle_results": "results.csv",
    "windows_paths": "c.csv",
    "jsonl": "x.jsonl",
    "json_array": "x.json",
    "json_by_picture": "x.json",
    "label_studio": "export.json",
    "split_tables": "train.csv",
    "tables_in_split_folders": "train/captions.csv",
    "coco": "annotations/captions_train2017.json",
    "imagefolder": "train/metadata.jsonl",
    "imagefolder_csv": "metadata.csv",
    "imagefolder_parquet": "metadata.parquet",
}
"""Layouts of which `index` takes the captions file."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path / "data")
    data = {"split": {"train": None, "val": None}}
    recipe = tiny.recipe(tmp_path / "data", tiny.ALIGN, data=data, train={"batch_size": 2})
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_indexed(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path / "data")
    place = tmp_path / "data" / BY_FILE.get(name, "")
    store = open_store(str(tmp_path / "store"), INFO)
    report = index(FakeModel(), place, store)
    rows = list(store.scan())
    captions = sorted(row.caption for row in rows if row.kind == "text")
    if name in PICTURES_ONLY:
        assert (report.added, captions) == (3, [])
        (left,) = (one.reason for one in report.failed if "captions" in one.reason)
        assert left == "captions that are not taken: add data.format=folder to have them"
        told = index(FakeModel(), place, store, reading=Reading("folder"))
        assert (told.added, told.updated) == (3, 3)
        return
    assert captions
    assert set(captions) <= set(CAPTIONS)
    assert sum(row.kind == "image" for row in rows) == len(captions)
    assert index(FakeModel(), place, store).unchanged == report.added


@pytest.mark.parametrize("name", ["coco", "imagefolder", "flickr8k", "csv_table"])
def test_captions_in_a_folder_of_pictures_are_not_left_in_silence(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path / "data")
    store = open_store(str(tmp_path / "store"), INFO)
    report = index(FakeModel(), tmp_path / "data", store)
    reason = next(one.reason for one in report.failed if "captions" in one.reason)
    format = reason.partition("data.format=")[2].split()[0]
    assert {row.kind for row in store.scan()} == {"image"}
    told = index(FakeModel(), tmp_path / "data", store, reading=Reading(format))
    assert {row.caption for row in store.scan() if row.kind == "text"} <= set(CAPTIONS)
    assert told.added == sum(row.kind == "text" for row in store.scan()) > 0
    assert not [one for one in told.failed if "captions that" in one.reason]


def text_file(root: Path) -> Path:
    """The file that holds the first caption."""
    files = [path for path in sorted(root.rglob("*")) if path.suffix in TEXT_FILES]
    files.sort(key=lambda path: path.suffix == ".json")  # beside captions in text they are notes
    return next(path for path in files if CAPTIONS[0].encode() in path.read_bytes())


OF_TEXT = sorted(
    set(LAYOUTS)
    - {"imagefolder_parquet", "img2dataset_parquet", "parquet", "arrow"}
    - {"shards", "shards_with_dots"}
)


@pytest.mark.parametrize("name", OF_TEXT)
def test_captions_in_another_encoding_are_said_with_their_file(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path)
    file = text_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"a red box", "a réd box".encode("cp1252"), 1))
    try:
        said = "\n".join(map(str, load_items(tmp_path).problems))
    except DataError as error:
        said = str(error)
    assert re.search(rf"{re.escape(file.name)}:.*not UTF-8", said), said


WITH_COLUMNS = {
    "csv_table": b"caption",
    "semicolons_with_a_mark": b"caption",
    "windows_paths": b"caption",
    "jsonl": b"text",
    "json_array": b"captions",
    "split_tables": b"title",
    "imagefolder": b"text",
    "kaggle_results": b" comment\n",
}


@pytest.mark.parametrize("name", WITH_COLUMNS)
def test_a_caption_column_of_another_name_is_asked_for(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path)
    for file in [path for path in tmp_path.rglob("*") if path.suffix in TEXT_FILES]:
        wrong = b"wording" + WITH_COLUMNS[name][len(WITH_COLUMNS[name].rstrip()) :]
        file.write_bytes(file.read_bytes().replace(WITH_COLUMNS[name], wrong))
    with pytest.raises(
        DataError, match=r"no caption column is known.*data\.caption=COLUMN, perhaps .*wording"
    ):
        load_items(tmp_path)


def empty_caption(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(CAPTIONS[0].encode(), b"", 1))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize("spoil", [empty_caption, cut_short])
@pytest.mark.parametrize("name", OF_TEXT)
def test_a_spoilt_row_is_counted_or_refused(name: str, spoil: Callable[[Path], None], tmp_path: Path) -> None:
    """One row of three: its file is refused by name, or the row is an item alone or a problem."""
    LAYOUTS[name][1](tmp_path)
    file = text_file(tmp_path)
    spoil(file)
    try:
        found = survey(tmp_path)
    except DataError as error:
        said = str(error)
        found = None
    if found is None:
        assert file.name in said
        return
    items = [item for split in found.splits.values() for item in split]
    if any(problem.where.endswith(file.name) for problem in found.problems):
        return  # of a file that cannot be read
    assert len(items) + len(found.problems) >= 3
    whole = [item for item in items if item.is_pair and set(item.captions) <= set(CAPTIONS)]
    assert len(whole) >= 2 or found.problems
