"""Bad data of every kind: one error that counts and shows them, or items without them and a list."""

import json
from pathlib import Path

import pytest

from data_files import entry, ids, karpathy, picture, write
from unicross.data.load import load_items
from unicross.errors import DataError


def both_ways(root: Path, split: str | None = None) -> tuple[str, list[str], list[str]]:
    """The error's text; the ids that are left with on_error="skip"; the kinds of the problems then."""
    with pytest.raises(DataError) as error:
        load_items(root, split)
    assert "data.on_error=skip" in str(error.value)
    loaded = load_items(root, split, on_error="skip")
    problems = [problem for problem in loaded.problems if problem.stops]
    assert all(str(problem) in str(error.value) for problem in problems[:3])
    return str(error.value), ids(loaded.items), [problem.kind for problem in problems]


def table(root: Path, *rows: str, header: str = "image,caption") -> Path:
    for name in "ab":
        picture(root / f"{name}.png")
    return write(root / "x.csv", header, *rows)


def test_clean_data_have_no_problems(tmp_path: Path) -> None:
    table(tmp_path, "a.png,one", "b.png,two")
    assert load_items(tmp_path).problems == []


def test_missing_image(tmp_path: Path) -> None:
    table(tmp_path, "a.png,one", "c.png,two", f"{'x' * 300}.png,long")
    text, left, kinds = both_ways(tmp_path)
    assert "2 missing images" in text
    assert f"x.csv:3: missing image: {tmp_path / 'c.png'}: no such file" in text
    assert (left, kinds) == (["a.png"], ["missing image"] * 2)


def test_unreadable_images(tmp_path: Path) -> None:
    table(tmp_path, "a.png,one", "b.png,two", "c.png,three", "d.png,four")
    (tmp_path / "b.png").write_bytes(b"no picture at all")
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.png").mkdir()
    text, left, kinds = both_ways(tmp_path)
    assert "x.csv:3: unreadable image" in text
    assert "not an image" in text
    assert "c.png: the file is empty" in text
    assert left == ["a.png"]
    assert kinds == ["unreadable image"] * 3


def test_empty_captions(tmp_path: Path) -> None:
    table(tmp_path, "a.png,one", "a.png,  ", "b.png,")
    text, left, kinds = both_ways(tmp_path)
    assert "x.csv:3: empty caption: of a.png" in text
    assert "2 empty captions" in text
    assert (left, kinds) == (["a.png"], ["empty caption"] * 2)
    assert load_items(tmp_path, on_error="skip").items[0].captions == ("one",)


def test_rows_of_one_item_are_its_images_and_captions(tmp_path: Path) -> None:
    table(tmp_path, "1,a.png,one", "1,b.png,two", "1,a.png,three", header="image_id,image,caption")
    (item,) = load_items(tmp_path).items
    assert [Path(image.name).name for image in item.images] == ["a.png", "b.png"]
    assert item.captions == ("one", "two", "three")


def test_an_item_goes_on_without_an_image_that_is_not_there(tmp_path: Path) -> None:
    table(tmp_path, "1,a.png,one", "1,gone.png,two", "2,gone.png,three", header="item_id,image,caption")
    text, left, kinds = both_ways(tmp_path)
    assert "x.csv:2: missing image" in text
    assert (left, kinds) == (["1"], ["missing image"] * 2)
    assert len(load_items(tmp_path, on_error="skip").items[0].images) == 1


def test_an_image_in_two_splits(tmp_path: Path) -> None:
    table(tmp_path, "a.png,one,train", "a.png,two,val", "b.png,three,train", header="image,caption,split")
    text, left, kinds = both_ways(tmp_path, "train")
    assert "x.csv:2: split overlap: a.png is in train and val" in text
    assert (left, kinds) == (["b.png"], ["split overlap"])


def test_an_overlap_of_other_splits_does_not_matter(tmp_path: Path) -> None:
    table(tmp_path, "a.png,1,test", "a.png,2,val", "b.png,3,train", header="image,caption,split")
    assert ids(load_items(tmp_path, "train").items) == ["b.png"]


@pytest.mark.parametrize("row", ["a.png,two,three", "a.png"])
def test_wrong_number_of_cells(tmp_path: Path, row: str) -> None:
    table(tmp_path, "a.png,one", row)
    text, left, kinds = both_ways(tmp_path)
    assert "x.csv:3: bad line" in text
    assert (left, kinds) == (["a.png"], ["bad line"])


def test_line_numbers_count_lines_inside_quotes(tmp_path: Path) -> None:
    table(tmp_path, 'a.png,"one', 'more"', "b.png,")
    assert "x.csv:4: empty caption" in both_ways(tmp_path)[0]


def test_bad_json_lines(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(
        tmp_path / "x.jsonl",
        '{"image": "a.png", "text": "one"}',
        "{not json",
        "[1]",
        '{"image": {"path": ["a.png"]}, "text": "two"}',
        '{"image": "a.png", "text": []}',
        '{"image": "a.png", "text": null}',
    )
    text, left, kinds = both_ways(tmp_path)
    assert "x.jsonl:2: bad line: not JSON" in text
    assert "image must be text" in text
    assert left == ["a.png"]
    assert sorted(kinds) == ["bad line"] * 3 + ["empty caption"]


def test_rows_with_neither_image_nor_caption(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(tmp_path / "x.csv", "image,width", "a.png,3", ",4")
    assert both_ways(tmp_path)[1:] == (["a.png"], ["bad line"])


def test_flickr_lists(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / "Images" / f"{name}.jpg")
    write(
        tmp_path / "Flickr8k.token.txt", "a.jpg#0\tone", "b.jpg#0\ttwo", "no tab here", "", "c.jpg#0\tthree"
    )
    write(tmp_path / "Flickr_8k.trainImages.txt", "a.jpg", "b.jpg", "a.jpg", "z.jpg", "")
    write(tmp_path / "Flickr_8k.devImages.txt", "b.jpg", "c.jpg", "c.jpg")
    text, left, kinds = both_ways(tmp_path, "train")
    assert "Flickr8k.token.txt:3: bad line: expected name.jpg#k<TAB>caption, got 'no tab here'" in text
    assert "trainImages.txt:3: duplicate id: a.jpg is listed twice (first in line 1)" in text
    assert "b.jpg is in dev and train" in text
    assert "trainImages.txt:4: missing image" in text
    assert "devImages.txt" not in text
    assert left == ["a.jpg"]
    assert sorted(kinds) == ["bad line", "duplicate id", "empty caption", "missing image", "split overlap"]


def test_karpathy_entries(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    karpathy(
        tmp_path / "dataset.json",
        entry("a.jpg", "train", "one"),
        entry("a.jpg", "train", "again"),
        entry("b.jpg", "train"),
        {"filename": "c.jpg"},
        {"filename": "c.jpg", "split": "train", "sentences": [{"raw": None}]},
    )
    text, left, kinds = both_ways(tmp_path, "train")
    assert "images[1]: duplicate id: a.jpg is there twice (first as images[0])" in text
    assert left == ["a.jpg"]
    assert sorted(kinds) == ["bad line", "bad line", "duplicate id", "empty caption"]


def test_folder_names_that_clash_and_empty_texts(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png"):
        picture(tmp_path / name)
    write(tmp_path / "a.txt", "one")
    write(tmp_path / "b.txt", "", "")
    text, left, kinds = both_ways(tmp_path)
    assert "a.txt would caption both a.jpg and a.png" in text
    assert "b.txt:1: empty caption" in text
    assert left == ["a.jpg"]
    assert sorted(kinds) == ["duplicate id", "empty caption"]


def test_many_problems_are_counted_and_few_shown(tmp_path: Path) -> None:
    table(tmp_path, "a.png,one", *(f"gone{index}.png,x" for index in range(50)), "b.png,")
    text, left, kinds = both_ways(tmp_path)
    assert "50 missing images, 1 empty caption" in text
    assert "... and 47 more of this kind" in text
    assert len(text.splitlines()) == 7
    assert (left, len(kinds)) == (["a.png"], 51)


def test_nothing_left_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", json.dumps({"image": "gone.png", "text": "x"}))
    with pytest.raises(DataError, match=r"no items: all of it has problems: 1 missing image"):
        load_items(tmp_path, on_error="skip")
