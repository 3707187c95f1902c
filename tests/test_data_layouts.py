"""Every layout that users have: read as its format, all pairs of it, and wrong versions of it said."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_files import ids, picture, write
from layouts import CAPTIONS, LAYOUTS, photo
from shard_files import png, shades, write_parquet, write_tar
from unicross.cli import app
from unicross.data.load import load_items, open_source, survey
from unicross.data.records import ReadOptions
from unicross.errors import DataError


def unread(root: Path, **options: object) -> list[str]:
    """What is said not to have been read."""
    return [problem.what for problem in load_items(root, **options).problems if not problem.stops]


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_pairs_of_every_layout_are_read(name: str, tmp_path: Path) -> None:
    format, make = LAYOUTS[name]
    make(tmp_path)
    source = open_source(tmp_path)
    assert source.format == format
    items = load_items(tmp_path).items
    assert sorted(caption for item in items for caption in item.captions) == sorted(CAPTIONS)
    assert all(item.is_pair for item in items)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_verdict_of_every_layout(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path)
    result = CliRunner().invoke(app, ["data", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "3 pairs of a picture and its words; 0 pictures without words, 0 texts" in result.output
    assert f"to train: unicross train clip data.root={tmp_path}" in result.output


@pytest.mark.parametrize("name", ["coco", "imagefolder", "split_tables", "tables_in_split_folders"])
def test_splits_by_names(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path)
    train = load_items(tmp_path, "train").items
    assert [item.captions[0] for item in train] == list(CAPTIONS[: len(train)])
    assert len(survey(tmp_path).splits) > 1


@pytest.mark.parametrize(
    "name", sorted({*LAYOUTS} - {"shards", "shards_with_dots", "parquet", "arrow", "img2dataset_parquet"})
)
def test_a_missing_picture_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][1](tmp_path)
    images = sorted(tmp_path.rglob("*.jpg"))
    images[0].unlink()
    if LAYOUTS[name][0] == "folder":  # its text is alone then
        assert sum(not item.images for item in load_items(tmp_path).items) == 1
        return
    with pytest.raises(DataError, match="1 missing image"):
        load_items(tmp_path)
    assert len(load_items(tmp_path, on_error="skip").items) == 2


def test_failed_downloads_are_counted(tmp_path: Path) -> None:
    for name in ("img2dataset_files", "img2dataset_parquet"):
        (tmp_path / name).mkdir()
        LAYOUTS[name][1](tmp_path / name)
        assert any("1 of 4 pictures were not downloaded" in what for what in unread(tmp_path / name))


def test_an_unknown_caption_column_is_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    file = write(tmp_path / "c.csv", "id,image,productDisplayName,year", "1,a.jpg,A shirt,2011")
    with pytest.raises(
        DataError, match=r"among id, image, productDisplayName, year.*data\.caption=COLUMN, perhaps pro"
    ):
        load_items(file)
    options = ReadOptions(captions=("productDisplayName", "year"), item="id")
    (item,) = load_items(file, options=options).items
    assert (item.id, item.captions) == ("1", ("A shirt", "2011"))
    assert load_items(file, options=ReadOptions(captions=())).items[0].captions == ()
    with pytest.raises(DataError, match=r"no column 'name' \(data\.caption\)"):
        load_items(file, options=ReadOptions(captions=("name",)))
    result = CliRunner().invoke(app, ["data", str(file), "data.caption=productDisplayName", "data.item=id"])
    assert "1 pair of a picture" in result.output
    assert "data.caption=productDisplayName" in result.output.splitlines()[-1]


def test_an_unknown_image_column_is_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "c.csv", "photo,caption", "a.jpg,A shirt")
    with pytest.raises(DataError, match=r"no image column is known.*data\.image=photo"):
        load_items(tmp_path)
    assert load_items(tmp_path, options=ReadOptions(images=("photo",))).items[0].is_pair


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_addresses_are_not_fetched(suffix: str, tmp_path: Path) -> None:
    if suffix == "csv":
        write(tmp_path / "c.csv", "URL,TEXT", "https://x.org/a.jpg,A shirt")
    else:
        write_parquet(tmp_path / "c.parquet", URL=["https://x.org/a?b=c"], TEXT=["A shirt"])
    with pytest.raises(DataError, match=r"addresses of pictures.*img2dataset"):
        load_items(tmp_path)


def test_columns_of_parquet_by_name_and_within_structs(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", image=[png(1)], info=[{"words": "A shirt"}], alt=[["one", "two"]])
    with pytest.raises(DataError, match=r"no caption column is known.*perhaps alt"):
        load_items(tmp_path)
    options = ReadOptions(captions=("info.words", "alt"))
    assert load_items(tmp_path, options=options).items[0].captions == ("A shirt", "one", "two")
    with pytest.raises(DataError, match="no field 'text'"):
        load_items(tmp_path, options=ReadOptions(captions=("info.text",)))


def test_nested_json(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    line = {"image": "a.jpg", "sentences": [{"raw": "one"}, {"raw": "two"}]}
    write(tmp_path / "x.jsonl", json.dumps(line))
    with pytest.raises(DataError, match="no caption column"):
        load_items(tmp_path)
    options = ReadOptions(captions=("sentences.raw",))
    assert load_items(tmp_path, options=options).items[0].captions == ("one", "two")


def test_encodings(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    file = tmp_path / "c.csv"
    file.write_bytes("image,caption\na.jpg,Ein Käfer läuft über die Straße".encode("cp1252"))
    with pytest.raises(DataError, match=r"c\.csv:2: not UTF-8 .*looks like cp1252.*data\.encoding=cp1252"):
        load_items(tmp_path)
    options = ReadOptions(encoding="cp1252")
    assert load_items(tmp_path, options=options).items[0].captions == ("Ein Käfer läuft über die Straße",)
    file.write_bytes("image,caption\na.jpg,Käfer\n".encode() + "a.jpg,Straße\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"c\.csv:3: .*1 of 2 lines .*another encoding"):
        load_items(tmp_path)
    file.write_text("image,caption\na.jpg,Käfer\n", encoding="utf-16")
    assert load_items(tmp_path).items[0].captions == ("Käfer",)


def test_pictures_that_no_row_names_are_counted(tmp_path: Path) -> None:
    LAYOUTS["csv_table"][1](tmp_path)
    picture(tmp_path / "images" / "extra.jpg")
    write(tmp_path / "notes.xml", "<x/>")
    write(tmp_path / "README.md", "read me")
    assert unread(tmp_path) == ["2 files: 1 .xml (notes.xml), 1 .jpg (images/extra.jpg)"]


def test_tables_below_the_root_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.jpg")
    write(tmp_path / "a" / "words.csv", "image,caption", "1.jpg,one")
    assert unread(tmp_path) == ["1 file: 1 .csv (a/words.csv)"]
    result = CliRunner().invoke(app, ["data", str(tmp_path)])
    assert "NO PAIRS of a picture and its words: 1 picture without words" in result.output
    assert "to search them without training: unicross index laion/" in result.output


def test_texts_that_go_with_no_picture_are_explained(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "b.txt", "one")
    (what,) = unread(tmp_path)
    assert what.startswith("no text goes with a picture: 1 picture and 1 text are alone")


def test_two_annotation_files_of_one_split(tmp_path: Path) -> None:
    LAYOUTS["coco"][1](tmp_path)
    file = tmp_path / "annotations" / "captions_train2017.json"
    file.with_name("captions_train2014.json").write_text(file.read_text())
    with pytest.raises(DataError, match="are of one split"):
        load_items(tmp_path)


def test_bad_parts_of_coco(tmp_path: Path) -> None:
    picture(tmp_path / "0.jpg")
    content = {
        "images": [{"id": 1, "file_name": "0.jpg"}, {"id": 1, "file_name": "1.jpg"}, {"file_name": "2.jpg"}],
        "annotations": [
            {"image_id": 1, "caption": "one"},
            {"image_id": 7, "caption": "two"},
            {"image_id": 1},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    loaded = load_items(tmp_path, on_error="skip")
    kinds = [problem.kind for problem in loaded.problems]
    assert (ids(loaded.items), kinds) == (["0.jpg"], ["duplicate id", "bad line", "bad line", "bad line"])
    (tmp_path / "captions.json").write_text(json.dumps({"images": [], "annotations": [{"bbox": []}]}))
    with pytest.raises(DataError, match="no COCO file with captions"):
        load_items(tmp_path / "captions.json")


def test_fields_of_a_sample_are_counted_and_dots_in_keys_read(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "a.png": png(1),
            "a.txt": "one",
            "a.left.png": png(2),
            "a.cls": "3",
            "b.1.png": png(4),
            "b.1.json": json.dumps({"caption": "two"}),
        },
    )
    for _ in range(2):  # by its members, then by the index that is kept
        items = load_items(tmp_path).items
        assert [(item.id, item.captions) for item in items] == [("0/a", ("one",)), ("0/b.1", ("two",))]
        assert shades(items) == [1, 4]
        assert unread(tmp_path) == ["2 members that are no KEY.jpg, KEY.txt or KEY.json: 1 .cls, 1 .left.png"]


def test_a_shard_of_which_nothing_is_read_is_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.img": png(1), "a.cap": "one"})
    with pytest.raises(DataError, match=r"nothing in it is read.*1 \.img, 1 \.cap"):
        load_items(tmp_path)


def test_captions_inside_photographs(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", "A boat at sea")
    picture(tmp_path / "b.jpg")
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:description><rdf:Alt>'
        '<rdf:li xml:lang="x-default">A hill</rdf:li><rdf:li xml:lang="de">Ein Hügel</rdf:li>'
        "</rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    write(tmp_path / "b.xmp", xmp)
    picture(tmp_path / "c.jpg")
    write(tmp_path / "c.jpg.supplemental-meta.json", json.dumps({"title": "c.jpg", "description": "A lake"}))
    photo(tmp_path / "d.jpg", "OLYMPUS DIGITAL CAMERA")
    assert any("captions inside the pictures (EXIF)" in what for what in unread(tmp_path))
    items = load_items(tmp_path, format="photos").items
    assert {item.id: item.captions for item in items} == {
        "a.jpg": ("A boat at sea",),
        "b.jpg": ("A hill", "Ein Hügel"),
        "c.jpg": ("A lake",),
        "d.jpg": (),
    }
    write(tmp_path / "b.xmp", '<!DOCTYPE x [<!ENTITY a "b">]>' + xmp)
    assert load_items(tmp_path, format="photos").items[1].captions == ()


@pytest.mark.shared
def test_real_photographs_and_coco() -> None:
    shared = Path(__file__).parents[2] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("the real data are not here")
    items = load_items(shared / "user-metadata", format="photos").items
    assert {item.id: item.captions[:1] for item in items} == {
        "embedded/ExifTool.jpg": ("A witty caption",),
        "embedded/ExtendedXMP.jpg": (),
        "embedded/IPTC.jpg": ("A witty caption",),
        "embedded/XMP.jpg": ("A witty caption",),
    }
    found = survey(shared / "coco-mini")
    assert [(name, len(items), len(items.texts)) for name, items in found.splits.items()] == [
        ("train", 80, 400),
        ("val", 79, 395),
    ]


def test_heic_from_telephones(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.full((32, 32, 3), 90, np.uint8)
    pillow_heif.from_bytes("RGB", (32, 32), pixels.tobytes()).save(tmp_path / "a.heic")
    write(tmp_path / "a.txt", "grey")
    (item,) = load_items(tmp_path).items
    assert item.is_pair


def test_heic_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unicross.data import decoding

    monkeypatch.setattr(decoding, "pillow_heif", None)
    monkeypatch.setattr(decoding, "image_kinds", lambda: ("JPEG", "PNG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    with pytest.raises(DataError, match=r"pip install 'unicross\[photos\]'"):
        load_items(tmp_path)
