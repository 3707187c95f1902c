"""Items with several images and captions of several fields and languages, in every format that can say it."""

from pathlib import Path

import numpy as np
import pytest

from data_files import flickr, picture, write
from shard_files import png, write_parquet, write_tar
from unicross.config import DataConfig
from unicross.data.items import CaptionKind, Item
from unicross.data.languages import kind_of, language_of
from unicross.data.load import load_items, read_options
from unicross.data.records import ReadOptions
from unicross.errors import DataError, RecipeError
from unicross.recipe import make_recipe

EN, DE = CaptionKind("title", "en"), CaptionKind("title", "de")


def read(root: Path, **how: object) -> list[Item]:
    return list(load_items(root, options=read_options(DataConfig(root=str(root), **how))).items)  # type: ignore[arg-type]


def names(item: Item) -> list[str]:
    return [Path(image.name).name for image in item.images]


@pytest.mark.parametrize(
    ("column", "field", "language"),
    [
        ("title", "title", None),
        ("title.en", "title", "en"),
        ("en.label", "label", "en"),
        ("title_de", "title", "de"),
        ("meta.zh-Hans.name", "meta.name", "zh"),
        ("image_caption", "image_caption", None),
        ("no", "no", None),
    ],
)
def test_a_column_says_its_field_and_language(column: str, field: str, language: str | None) -> None:
    assert kind_of(column) == CaptionKind(field, language)


@pytest.mark.parametrize(
    ("word", "code"), [("pt_BR", "pt"), ("xx", None), ("english", None), ("DE", "de"), ("", None)]
)
def test_languages_by_their_codes(word: str, code: str | None) -> None:
    assert language_of(word) == code


def test_lists_and_objects_of_a_json_table(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    write(
        tmp_path / "x.jsonl",
        '{"sku": 1, "photos": ["a.png", "b.png", "a.png"], "title": {"en": "one", "de": "eins"}}',
        '{"sku": 2, "photos": {"front": "c.png"}, "title": {"en": ["two", "pair"]}}',
        '{"sku": 3, "photos": null, "title": {"de": "drei"}}',
    )
    items = read(tmp_path, image="photos", caption=["title.en", "title.de"], item="sku")
    assert [(item.id, names(item), item.captions, item.kinds) for item in items] == [
        ("1", ["a.png", "b.png"], ("one", "eins"), (EN, DE)),
        ("2", ["c.png"], ("two", "pair"), (EN, EN)),
        ("3", [], ("drei",), (DE,)),
    ]


def test_rows_and_columns_of_a_csv(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    write(
        tmp_path / "x.csv",
        "item_id,front,back,title,lang",
        "1,a.png,b.png,one,en",
        "1,c.png,,eins,de",
        "2,c.png,,two,en",
    )
    items = read(tmp_path, image=["front", "back"], language="lang")
    assert [(item.id, names(item), item.captions) for item in items] == [
        ("1", ["a.png", "b.png", "c.png"], ("one", "eins")),
        ("2", ["c.png"], ("two",)),
    ]
    assert items[0].kinds == (CaptionKind(None, "en"), CaptionKind(None, "de"))


def test_an_item_in_two_splits_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    write(tmp_path / "x.csv", "item_id,image,caption,split", "1,a.png,one,train", "1,b.png,two,val")
    with pytest.raises(DataError, match=r"split overlap: 1 is in train and val"):
        load_items(tmp_path, "train")


def test_rows_of_a_parquet_file_are_the_pictures_of_their_item(tmp_path: Path) -> None:
    """A row for each caption repeats the picture, which then counts once."""
    write_parquet(
        tmp_path / "x.parquet",
        image=[png(1), png(2), png(1), png(1), None],
        caption=["one", None, "more", "two", "words"],
        item_id=["a", "a", "a", "b", "c"],
    )
    items = read(tmp_path)
    assert [(item.id, len(item.images), item.captions) for item in items] == [
        ("a", 2, ("one", "more")),
        ("b", 1, ("two",)),
        ("c", 0, ("words",)),
    ]
    assert [image.read() for image in items[0].images] == [png(1), png(2)]


def test_lists_of_paths_in_a_parquet_file(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    write_parquet(
        tmp_path / "x.parquet",
        photos=[["a.png", "b.png"], ["gone.png"], ["c.png"]],
        title_en=["one", "none", "three"],
        title_de=["eins", None, ""],
        split=["train", "test", "val"],
    )
    items = list(
        load_items(
            tmp_path,
            "train+val",
            options=read_options(DataConfig(root="x", image="photos", caption=("title_en", "title_de"))),
        ).items
    )
    assert [(names(item), item.captions, item.kinds) for item in items] == [
        (["a.png", "b.png"], ("one", "eins"), (EN, DE)),
        (["c.png"], ("three",), (EN,)),
    ]
    with pytest.raises(DataError, match=r"x\.parquet: row 1: missing image: .*gone\.png"):
        read(tmp_path, image="photos", caption="title_en")


def test_a_language_column_of_several_parquet_files(tmp_path: Path) -> None:
    for name, languages in (("a", ["en", "de"]), ("b", ["de", "en"])):
        write_parquet(
            tmp_path / f"{name}.parquet", image=[png(1), png(2)], caption=["x", "y"], lang=languages
        )
    items = read(tmp_path, language="lang")
    assert [kind.language for item in items for kind in item.kinds] == ["en", "de", "de", "en"]


def test_two_columns_of_encoded_pictures_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", front=[png(1)], back=[png(2)], caption=["x"])
    with pytest.raises(DataError, match=r"only one column may hold encoded pictures.*data\.item"):
        read(tmp_path, image=["front", "back"])


def test_numbered_members_of_a_shard_are_images_of_their_key(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "k.jpg": png(1),
            "k.1.jpg": png(2),
            "k.left.jpg": png(3),
            "k.txt": "a text",
            "m.0.png": png(4),
            "m.1.png": png(5),
            "m.txt": "words",
            "2021.05.jpg": png(6),
            "2021.05.txt": "a date",
        },
    )
    loaded = load_items(tmp_path)
    shades = {item.id: [image.read() for image in item.images] for item in loaded.items}
    assert shades == {"0/k": [png(1), png(2)], "0/m": [png(4), png(5)], "0/2021.05": [png(6)]}
    assert len({image.name for item in loaded.items for image in item.images}) == 5
    assert [problem.what for problem in loaded.problems] == [
        "1 members that are no KEY.jpg, KEY.txt or KEY.json: 1 .left.jpg"
    ]


def test_folders_as_items(tmp_path: Path) -> None:
    for name in ("train/shoe/a.png", "train/shoe/b.png", "val/hat/a.png"):
        picture(tmp_path / name)
    write(tmp_path / "train/shoe/title.en.txt", "a shoe")
    write(tmp_path / "train/shoe/title.de.txt", "ein Schuh")
    write(tmp_path / "val/hat/title.en.txt", "a hat", "a cap")
    items = read(tmp_path, item="folder")
    assert {item.id: (names(item), set(item.captions)) for item in items} == {
        "train/shoe": (["a.png", "b.png"], {"a shoe", "ein Schuh"}),
        "val/hat": (["a.png"], {"a hat", "a cap"}),
    }
    assert {kind.language for item in items for kind in item.kinds} == {"en", "de"}
    options = read_options(DataConfig(root="x", item="folder"))
    assert [item.id for item in load_items(tmp_path, "val", options=options).items] == ["val/hat"]
    with pytest.raises(DataError, match=r"has no column 'sku': data\.item=folder"):
        read(tmp_path, item="sku")


def test_files_of_flickr_captions_in_other_languages(tmp_path: Path) -> None:
    flickr(tmp_path)
    write(tmp_path / "Flickr8k.zh.token.txt", "a.jpg#0\t一个", "b.jpg#0\t二")
    write(tmp_path / "Flickr8k.token.de.txt", "a.jpg#0\tEin a", "c.jpg#0\tEin c")
    items = load_items(tmp_path, "train").items
    assert {item.id: item.captions[5:] for item in items} == {"a.jpg": ("Ein a", "一个"), "b.jpg": ("二",)}
    languages = items.languages
    assert languages is not None
    assert sorted(languages.tolist()) == sorted(["en"] * 10 + ["de", "zh", "zh"])


def test_a_column_named_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.caption: the column title is named twice"):
        make_recipe(
            {"data": {"root": "x", "caption": ["title", "title"]}, "model": {"pair": "p"}, "stages": []}
        )


def test_nested_captions_are_proposed_in_all_their_languages(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    write(
        tmp_path / "x.jsonl", '{"image": "a.png", "id": "q", "en": {"name": "one"}, "de": {"name": "eins"}}'
    )
    with pytest.raises(DataError, match=r"perhaps \[en\.name,de\.name\]"):
        load_items(tmp_path)


def test_items_without_some_images(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    write(
        tmp_path / "x.jsonl",
        '{"image": ["a.png", "b.png"], "caption": "one"}',
        '{"image": ["c.png"], "caption": "two"}',
        '{"image": [], "caption": "three"}',
        '{"image": ["d.png"], "caption": "four"}',
    )
    items = load_items(tmp_path).items
    fewer, kept = items.without_images([1, 2])
    assert [(names(item), item.captions) for item in fewer] == [
        (["a.png"], ("one",)),
        ([], ("three",)),
        (["d.png"], ("four",)),
    ]
    assert np.array_equal(kept, [0, 3])
    assert items.digest() != fewer.digest()


def test_rows_of_an_items_pictures_that_say_the_same_are_one_caption(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    write(
        tmp_path / "x.csv",
        "image,title,tags,sku",
        "a.png,a red boat,boat,1",
        "b.png,a red boat,harbour,1",
        "c.png,a red boat,a red boat,2",
        "c.png,a red boat,a red boat,2",
    )
    one, two = read(tmp_path, caption=["title", "tags"], item="sku")
    title, tags = CaptionKind("title"), CaptionKind("tags")
    assert sorted(zip(one.captions, one.kinds, strict=True), key=str) == [
        ("a red boat", title),
        ("boat", tags),
        ("harbour", tags),
    ]
    assert sorted(two.kinds, key=str) == [tags, tags, title, title]  # of one image: as its rows say it


def test_a_column_without_any_caption_is_told_with_the_languages_that_there_are(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = '{"image": "a.png", "title": {"en": "a cup", "de": "eine Tasse"}}\n'
    (tmp_path / "rows.jsonl").write_text(rows)
    for named, told in (
        (
            ("title.en", "title.fr"),
            ["no row has a caption in title.fr (data.caption): there are title.en, title.de"],
        ),
        (("title.en", "title.de"), []),
    ):
        loaded = load_items(tmp_path / "rows.jsonl", options=ReadOptions(captions=named))
        assert loaded.items[0].captions[0] == "a cup"
        assert [problem.what for problem in loaded.problems] == told
