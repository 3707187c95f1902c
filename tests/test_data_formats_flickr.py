"""Flickr8k's and Flickr30k's token files and lists."""

from pathlib import Path

import pytest

from data_files import flickr, ids, image_path, picture, write
from unicross.data.load import load_items

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return flickr(tmp_path)


def test_captions_are_grouped_in_their_order(root: Path) -> None:
    items = load_items(root, "train").items
    assert ids(items) == ["a.jpg", "b.jpg"]
    assert items[0].captions == tuple(f"caption {k} of a ." for k in range(5))
    assert image_path(items[0]) == root / "Images" / "a.jpg"


@pytest.mark.parametrize("name", ["dev", "val", "validation"])
def test_dev_has_other_names(root: Path, name: str) -> None:
    assert ids(load_items(root, name).items) == ["c.jpg"]


def test_splits_are_joined_by_plus(root: Path) -> None:
    assert ids(load_items(root, "train+dev").items) == ["a.jpg", "b.jpg", "c.jpg"]


def test_the_token_file_itself_may_be_given(root: Path) -> None:
    assert len(load_items(str(root / "Flickr8k.token.txt"), "train").items) == 2


def test_flickr30k(tmp_path: Path) -> None:
    picture(tmp_path / "flickr30k-images" / "1.jpg")
    write(tmp_path / "results_20130124.token", "1.jpg#0\tTwo men .", "1.jpg#1\tA pair .")
    write(tmp_path / "val.txt", "1")
    assert load_items(tmp_path, "val").items[0].captions == ("Two men .", "A pair .")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real Flickr8k is not at ../shared/data/flickr8k")
def test_real_flickr8k() -> None:
    dev = load_items(SHARED, "dev").items
    train = load_items(SHARED, "train").items
    assert (len(dev), len(train)) == (1000, 6000)
    assert all(len(item.captions) == 5 and item.is_pair for item in [*dev, *train])
    assert not set(ids(dev)) & set(ids(train))
