"""Every format read from small files written here: what becomes an item, its captions, id and split."""

import csv
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_files import entry, ids, karpathy, picture, write
from unicross.data.items import ImageFile, Item
from unicross.data.reading import load_items, set_aside
from unicross.errors import DataError

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k"


def image_path(item: Item) -> Path:
    assert isinstance(item.image, ImageFile)
    return item.image.path


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """a and b in train, c in dev, d in no list and without a picture."""
    for name in "abc":
        picture(tmp_path / "Images" / f"{name}.jpg")
    write(
        tmp_path / "Flickr8k.token.txt",
        *(f"{name}.jpg#{k}\tcaption {k} of {name} ." for name in "abcd" for k in range(5)),
    )
    write(tmp_path / "Flickr_8k.trainImages.txt", "b.jpg", "a.jpg")
    write(tmp_path / "Flickr_8k.devImages.txt", "c.jpg")
    return tmp_path


class TestFlickr:
    def test_captions_are_grouped_in_their_order(self, flickr: Path) -> None:
        items = load_items(flickr, "train").items
        assert ids(items) == ["a.jpg", "b.jpg"]
        assert items[0].captions == tuple(f"caption {k} of a ." for k in range(5))
        assert image_path(items[0]) == flickr / "Images" / "a.jpg"

    @pytest.mark.parametrize("name", ["dev", "val", "validation"])
    def test_dev_has_other_names(self, flickr: Path, name: str) -> None:
        assert ids(load_items(flickr, name).items) == ["c.jpg"]

    def test_splits_are_joined_by_plus(self, flickr: Path) -> None:
        assert ids(load_items(flickr, "train+dev").items) == ["a.jpg", "b.jpg", "c.jpg"]

    def test_the_token_file_itself_may_be_given(self, flickr: Path) -> None:
        assert len(load_items(str(flickr / "Flickr8k.token.txt"), "train").items) == 2

    def test_flickr30k(self, tmp_path: Path) -> None:
        picture(tmp_path / "flickr30k-images" / "1.jpg")
        write(tmp_path / "results_20130124.token", "1.jpg#0\tTwo men .", "1.jpg#1\tA pair .")
        write(tmp_path / "val.txt", "1")
        assert load_items(tmp_path, "val").items[0].captions == ("Two men .", "A pair .")


class TestKarpathy:
    def test_coco_layout_and_restval(self, tmp_path: Path) -> None:
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

    def test_images_beside_the_file(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.jpg")
        karpathy(tmp_path / "dataset_flickr8k.json", entry("a.jpg", "test", "x"))
        assert image_path(load_items(tmp_path, "test").items[0]) == tmp_path / "a.jpg"

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", "not JSON"), ("[]", "no list of `images`"), ('{"images": 3}', "no list of `images`")],
    )
    def test_other_json_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        file = write(tmp_path / "dataset.json", text)
        with pytest.raises(DataError, match=message):
            load_items(file)


class TestTable:
    @pytest.mark.parametrize(
        ("name", "lines"),
        [
            ("captions.txt", ["image,caption", 'a.jpg,"One, two ."', "a.jpg,Three ."]),
            ("x.csv", ["split;Caption;File_Name", "train;One, two .;a.jpg", "train;Three .;a.jpg"]),
            ("x.tsv", ["text\tpath", "One, two .\ta.jpg", "Three .\ta.jpg"]),
            ("x.tsv", ["text\tpath", '"One, two ."\ta.jpg', "Three .\ta.jpg"]),
            (
                "results.csv",
                ["image_name| comment_number| comment", "a.jpg| 0| One, two .", "a.jpg| 1| Three ."],
            ),
            ("x.jsonl", ['{"image": "a.jpg", "captions": ["One, two .", " Three ."]}']),
            (
                "x.jsonl",
                ['{"image": "a.jpg", "text": "One, two ."}', "", '{"image": "a.jpg", "text": "Three ."}'],
            ),
        ],
    )
    def test_kinds_of_tables(self, tmp_path: Path, name: str, lines: list[str]) -> None:
        picture(tmp_path / "Images" / "a.jpg")
        file = write(tmp_path / name, *lines)
        for root in (tmp_path, file):
            (item,) = load_items(root).items
            assert item == Item("a.jpg", ImageFile(tmp_path / "Images" / "a.jpg"), ("One, two .", "Three ."))

    def test_bare_quotes_in_a_tsv_are_text(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.jpg")
        write(tmp_path / "x.tsv", "text\timage", '"Stop" says a sign\ta.jpg', 'an open "quote\ta.jpg')
        assert load_items(tmp_path).items[0].captions == ('"Stop" says a sign', 'an open "quote')

    def test_byte_order_mark_and_windows_line_ends(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.jpg")
        (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbfimage,caption\r\na.jpg,One\r\na.jpg,Two\r\n")
        assert load_items(tmp_path).items[0].captions == ("One", "Two")

    def test_splits_and_ids_from_columns(self, tmp_path: Path) -> None:
        for name in "ab":
            picture(tmp_path / f"{name}.png")
        write(
            tmp_path / "x.csv",
            "image_id,image,caption,split",
            "7,a.png,one,train",
            "7,a.png,two,train",
            "8,b.png,three,val",
        )
        train = load_items(tmp_path, "train").items
        assert ids(train) == ["7"]
        assert train[0].captions == ("one", "two")
        assert ids(load_items(tmp_path, "dev").items) == ["8"]

    def test_texts_alone_are_grouped_by_id_only(self, tmp_path: Path) -> None:
        grouped = write(tmp_path / "x.csv", "image_id,image,text", "1,,one", "1,,two", "2,,three")
        assert [item.captions for item in load_items(grouped).items] == [("one", "two"), ("three",)]
        alone = write(tmp_path / "y.csv", "text,other", "one,", "one,")
        items = load_items(alone).items
        assert [item.captions for item in items] == [("one",), ("one",)]
        assert len(set(ids(items))) == 2
        assert all(item.image is None and not item.is_pair for item in items)

    def test_a_row_without_image_may_add_a_caption_by_its_id(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        write(tmp_path / "x.csv", "image_id,image,text", "1,,one", "1,a.png,two")
        (item,) = load_items(tmp_path).items
        assert item.captions == ("one", "two")
        assert image_path(item) == tmp_path / "a.png"

    def test_images_alone_where_there_is_no_caption_column(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        write(tmp_path / "x.csv", "image,size", "a.png,3")
        assert list(load_items(tmp_path).items) == [Item("a.png", ImageFile(tmp_path / "a.png"), ())]

    def test_no_known_column(self, tmp_path: Path) -> None:
        file = write(tmp_path / "x.csv", "a.jpg,A dog", "b.jpg,A cat")
        with pytest.raises(
            DataError, match=r"no image and no caption column among a\.jpg, A dog.*first line"
        ):
            load_items(file)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["image,caption", '"a.jpg"x,One'], "quotes do not match"),
            (["image,caption,caption", "a.jpg,One,Two"], "two columns are called 'caption'"),
            (["image,caption"], "no rows that can be read"),
            ([], "no rows that can be read"),
        ],
    )
    def test_broken_tables(self, tmp_path: Path, lines: list[str], message: str) -> None:
        with pytest.raises(DataError, match=message):
            load_items(write(tmp_path / "x.csv", *lines))

    def test_other_encodings_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_bytes("image,caption\na.jpg,Käfer".encode("latin-1"))
        with pytest.raises(DataError, match=r"not UTF-8 .*save it as UTF-8"):
            load_items(tmp_path)

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4))
    def test_any_caption_survives_csv(
        self, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
    ) -> None:
        root = tmp_path_factory.mktemp("csv")
        with (root / "x.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image_id", "caption"], *(["1", f"<{text}>"] for text in texts)])
        wanted = [f"<{text}>".replace("\r\n", "\n").replace("\r", "\n") for text in texts]
        assert list(load_items(root).items[0].captions) == wanted


class TestFolder:
    def test_pairs_images_alone_and_texts_alone(self, tmp_path: Path) -> None:
        picture(tmp_path / "sub" / "a.JPG")
        write(tmp_path / "sub" / "a.txt", "one", "", "two")
        picture(tmp_path / "b.png")
        write(tmp_path / "c.txt", "three")
        picture(tmp_path / ".hidden" / "d.png")
        picture(tmp_path / "._b.png")
        assert {
            (item.image_id, item.image is None, item.captions) for item in load_items(tmp_path).items
        } == {
            ("b.png", False, ()),
            ("c.txt", True, ("three",)),
            ("sub/a.JPG", False, ("one", "two")),
        }

    def test_first_level_folders_are_splits(self, tmp_path: Path) -> None:
        picture(tmp_path / "train" / "x" / "a.png")
        picture(tmp_path / "val" / "a.png")
        picture(tmp_path / "other" / "a.png")
        assert ids(load_items(tmp_path, "train").items) == ["train/x/a.png"]
        assert ids(load_items(tmp_path, "val").items) == ["val/a.png"]
        assert len(load_items(tmp_path).items) == 3

    def test_linked_folders_are_followed_once(self, tmp_path: Path) -> None:
        picture(tmp_path / "real" / "a.png")
        root = tmp_path / "root"
        root.mkdir()
        (root / "link").symlink_to(tmp_path / "real")
        (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
        assert ids(load_items(root).items) == ["link/a.png"]


class TestDetection:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file or folder"):
            load_items(tmp_path / "absent")
        with pytest.raises(DataError, match=r"no data found\. Looked for\n.*token(.|\n)*dataset\*\.json"):
            load_items(tmp_path)

    def test_several_captions_files_are_ambiguous(self, flickr: Path) -> None:
        write(flickr / "captions.csv", "image,caption", "a.jpg,another")
        with pytest.raises(
            DataError, match=r"several captions files(.|\n)*flickr:(.|\n)*table:(.|\n)*data\.format"
        ):
            load_items(flickr)
        assert load_items(flickr, format="table").items[0].captions == ("another",)
        assert len(load_items(flickr, "train", format="flickr").items) == 2

    def test_a_named_format_reads_a_file_of_any_name(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.jpg")
        file = write(tmp_path / "mine.dat", "image,caption", "a.jpg,one")
        with pytest.raises(DataError, match="no data found"):
            load_items(file)
        assert load_items(file, format="table").items[0].captions == ("one",)

    def test_a_format_that_is_not_there(self, flickr: Path) -> None:
        with pytest.raises(DataError, match="no data of format 'karpathy' found"):
            load_items(flickr, format="karpathy")

    def test_captions_txt_without_a_header_is_a_text(self, tmp_path: Path) -> None:
        write(tmp_path / "captions.txt", "A dog.", "A cat.")
        assert load_items(tmp_path).items[0].captions == ("A dog.", "A cat.")


class TestSplits:
    def test_unknown_split_names_those_that_exist(self, flickr: Path) -> None:
        with pytest.raises(DataError, match=r"no split 'test': splits here: dev, train"):
            load_items(flickr, "test")
        with pytest.raises(DataError, match="no split 'tset'"):
            load_items(flickr, "train+tset")

    def test_data_without_splits_are_all_for_training(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        assert ids(load_items(tmp_path, "train").items) == ids(load_items(tmp_path).items) == ["a.png"]
        with pytest.raises(DataError, match=r"have no splits.*leave it null"):
            load_items(tmp_path, "val")

    @given(n=st.integers(2, 60), share=st.floats(0.1, 0.9), seed=st.integers(0, 3), shuffle=st.randoms())
    def test_set_aside_is_a_partition_that_depends_on_ids_only(
        self, n: int, share: float, seed: int, shuffle: random.Random
    ) -> None:
        items = [Item(f"{index}.jpg", ImageFile(Path("a.jpg")), ("x",)) for index in range(n)]
        if not 0 < round(share * n) < n:
            return
        rest, aside = set_aside(items, share, seed)
        assert len(aside) == round(share * n)
        assert sorted(ids(rest) + ids(aside)) == sorted(ids(items))
        assert ids(aside) == [i for i in ids(items) if i in set(ids(aside))]
        again = list(items)
        shuffle.shuffle(again)
        assert set(ids(set_aside(again, len(aside), seed)[1])) == set(ids(aside))

    def test_set_aside_differs_by_seed(self) -> None:
        items = [Item(str(index), ImageFile(Path("a.jpg")), ("x",)) for index in range(100)]
        assert ids(set_aside(items, 20, 0)[1]) != ids(set_aside(items, 20, 1)[1])

    def test_what_is_alone_is_not_set_aside(self) -> None:
        pairs = [Item(f"{n}.jpg", ImageFile(Path("a.jpg")), ("x",)) for n in range(20)]
        alone = [Item(f"t{n}", None, ("x",)) for n in range(50)]
        alone += [Item(f"i{n}.jpg", ImageFile(Path("b.jpg")), ()) for n in range(50)]
        rest, aside = set_aside([*alone, *pairs], 0.1, 0)
        assert len(aside) == 2
        assert set(ids(aside)) <= {pair.image_id for pair in pairs}
        assert len(rest) == 118
        with pytest.raises(DataError, match="cannot set aside 20 of 20 pairs"):
            set_aside([*alone, *pairs], 20, 0)

    @pytest.mark.parametrize("amount", [0, 3, 10, -1, 0.01])
    def test_set_aside_must_leave_something_on_both_sides(self, amount: float) -> None:
        items = [Item(str(index), ImageFile(Path("a.jpg")), ("x",)) for index in range(3)]
        with pytest.raises(DataError, match="cannot set aside"):
            set_aside(items, amount, 0)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real Flickr8k is not at ../shared/data/flickr8k")
def test_real_flickr8k() -> None:
    dev = load_items(SHARED, "dev").items
    train = load_items(SHARED, "train").items
    assert (len(dev), len(train)) == (1000, 6000)
    assert all(len(item.captions) == 5 and item.is_pair for item in [*dev, *train])
    assert not set(ids(dev)) & set(ids(train))


def test_a_json_record_without_a_caption_is_an_image_alone(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    lines = [
        '{"image": "a.png", "caption": ["a dog", "a hound"]}',
        '{"image": "b.png"}',
        '{"caption": "a cat"}',
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(lines))
    items = load_items(tmp_path / "items.jsonl").items
    assert [(item.image is not None, item.captions) for item in items] == [
        (True, ("a dog", "a hound")),
        (True, ()),
        (False, ("a cat",)),
    ]
