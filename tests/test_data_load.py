"""Which splits there are, and setting items aside."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_files import flickr, ids, picture
from shard_files import png, write_parquet
from unicross.config import DataConfig, SplitConfig
from unicross.data.image_source import ImageFile
from unicross.data.items import Item
from unicross.data.load import load_items, read_untrained, set_aside
from unicross.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return flickr(tmp_path)


def test_unknown_split_names_those_that_exist(root: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'test': splits here: dev, train"):
        load_items(root, "test")
    with pytest.raises(DataError, match="no split 'tset'"):
        load_items(root, "train+tset")


def test_data_without_splits_are_all_for_training(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert ids(load_items(tmp_path, "train").items) == ids(load_items(tmp_path).items) == ["a.png"]
    with pytest.raises(DataError, match=r"have no splits.*leave it null"):
        load_items(tmp_path, "val")


@given(n=st.integers(2, 60), share=st.floats(0.1, 0.9), seed=st.integers(0, 3), shuffle=st.randoms())
def test_set_aside_is_a_partition_that_depends_on_ids_only(
    n: int, share: float, seed: int, shuffle: random.Random
) -> None:
    items = [Item(f"{index}.jpg", (ImageFile(Path("a.jpg")),), ("x",)) for index in range(n)]
    if not 0 < round(share * n) < n:
        return
    rest, aside = set_aside(items, share, seed)
    assert len(aside) == round(share * n)
    assert sorted(ids(rest) + ids(aside)) == sorted(ids(items))
    assert ids(aside) == [i for i in ids(items) if i in set(ids(aside))]
    again = list(items)
    shuffle.shuffle(again)
    assert set(ids(set_aside(again, len(aside), seed)[1])) == set(ids(aside))


def test_set_aside_differs_by_seed() -> None:
    items = [Item(str(index), (ImageFile(Path("a.jpg")),), ("x",)) for index in range(100)]
    assert ids(set_aside(items, 20, 0)[1]) != ids(set_aside(items, 20, 1)[1])


def test_what_is_alone_is_not_set_aside() -> None:
    pairs = [Item(f"{n}.jpg", (ImageFile(Path("a.jpg")),), ("x",)) for n in range(20)]
    alone = [Item(f"t{n}", (), ("x",)) for n in range(50)]
    alone += [Item(f"i{n}.jpg", (ImageFile(Path("b.jpg")),), ()) for n in range(50)]
    rest, aside = set_aside([*alone, *pairs], 0.1, 0)
    assert len(aside) == 2
    assert set(ids(aside)) <= {pair.id for pair in pairs}
    assert len(rest) == 118
    with pytest.raises(DataError, match="cannot set aside 20 of 20 pairs"):
        set_aside([*alone, *pairs], 20, 0)


@pytest.mark.parametrize("amount", [0, 3, 10, -1, 0.01])
def test_set_aside_must_leave_something_on_both_sides(amount: float) -> None:
    items = [Item(str(index), (ImageFile(Path("a.jpg")),), ("x",)) for index in range(3)]
    with pytest.raises(DataError, match="cannot set aside"):
        set_aside(items, amount, 0)


@pytest.mark.parametrize("place", [".", "../photos", "./"])
def test_what_was_read_is_known_however_the_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    for name in "ab":
        picture(tmp_path / "photos" / f"{name}.png")
        (tmp_path / "photos" / f"{name}.txt").write_text("a thing", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "photos")
    loaded = load_items(place)
    assert (len(loaded.items), loaded.problems) == (2, [])
    (tmp_path / "photos" / "notes.docx").write_bytes(b"?")
    assert [problem.what for problem in load_items(place).problems] == ["1 file: 1 .docx (notes.docx)"]


def test_tables_that_were_read_are_known_however_their_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        write_parquet(
            tmp_path / f"{name}.parquet",
            image=[{"bytes": png(ord(name)), "path": f"{name}.png"}],
            caption=["a thing"],
        )
    monkeypatch.chdir(tmp_path)
    loaded = load_items(".")
    assert (len(loaded.items), loaded.problems) == (2, [])


def test_an_untrained_pair_reads_the_columns_that_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "title": {"en": "a cup"}, "caption": "no"}\n')
    data = DataConfig(
        root=str(tmp_path / "rows.jsonl"), caption="title.en", split=SplitConfig(train=None, val=None)
    )
    assert [item.captions for item in read_untrained(data)] == [("a cup",)]
