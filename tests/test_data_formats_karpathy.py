"""Karpathy's JSON."""

from pathlib import Path

import pytest

from data_files import entry, ids, image_path, karpathy, picture, write
from unicross.data.load import load_items
from unicross.errors import DataError


def test_coco_layout_and_restval(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train2014" / "a.jpg")
    picture(tmp_path / "val2014" / "b.jpg")
    file = karpathy(
        tmp_path / "dataset_coco.json",
        entry("a.jpg", "train", "one", " two ", filepath="train2014", cocoid=1),
        entry("b.jpg", "restval", "three", filepath="val2014", cocoid=2),
    )
    assert ids(load_items(tmp_path, "train").items) == ["a.jpg"]
    both = load_items(file, "train+restval").items
    assert [item.captions for item in both] == [("one", "two"), ("three",)]
    assert image_path(both[1]) == tmp_path / "val2014" / "b.jpg"


def test_images_beside_the_file(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    karpathy(tmp_path / "dataset_flickr8k.json", entry("a.jpg", "test", "x"))
    assert image_path(load_items(tmp_path, "test").items[0]) == tmp_path / "a.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "no list of `images`"), ('{"images": 3}', "no list of `images`")],
)
def test_other_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "dataset.json", text)
    with pytest.raises(DataError, match=message):
        load_items(file)
