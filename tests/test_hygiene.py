"""The check of data: twins and leaks, odd captions, what is left, and the command that says it all."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from data_files import write
from fake_model import COLOURS, FakeModel, paint
from shard_files import png, write_tar
from unicross.cli import app
from unicross.config import DataConfig
from unicross.data.image_source import ImageFile
from unicross.data.items import strings
from unicross.data.load import load_items, survey
from unicross.data.records import ReadOptions
from unicross.errors import DataError
from unicross.hygiene.captions import languages, one_word, repeated
from unicross.hygiene.check import Checked, check
from unicross.hygiene.clean import write_clean
from unicross.hygiene.fingerprints import take_fingerprints
from unicross.hygiene.leaks import exact_leaks
from unicross.hygiene.sheet import render
from unicross.hygiene.twins import same_bytes, twins
from unicross.run import RunFolder

pytest.importorskip("imagehash")
pytest.importorskip("py3langid")


def silent(done: int, total: int) -> None:
    del done, total


def scene(seed: int) -> Image.Image:
    """A picture with the large shapes of a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)


@pytest.fixture
def twin_set(tmp_path: Path) -> Path:
    """Four pictures, then 0 copied, 1 smaller, 2 compressed among those held out, 3 damaged."""
    for k in range(4):
        scene(k).save(tmp_path / f"{k}.png")
    (tmp_path / "4.png").write_bytes((tmp_path / "0.png").read_bytes())
    scene(1).resize((96, 72)).save(tmp_path / "5.png")
    scene(2).save(tmp_path / "6.jpg", quality=60)
    (tmp_path / "7.png").write_bytes((tmp_path / "3.png").read_bytes()[:2000])
    names = [*(f"{k}.png" for k in range(6)), "6.jpg", "7.png"]
    rows = [
        f"{name},a caption of picture number {k},{'test' if k == 6 else 'train'}"
        for k, name in enumerate(names)
    ]
    write(tmp_path / "c.csv", "image,caption,split", *rows)
    return tmp_path


def checked_set(root: Path) -> Checked:
    return check(survey(root).splits, lambda _: silent)


def test_twins_are_told_from_bytes_and_from_looks(twin_set: Path) -> None:
    paths = [twin_set / f"{k}.png" for k in (0, 4, 1, 5, 2)] + [twin_set / "6.jpg", twin_set / "7.png"]
    prints = take_fingerprints([ImageFile(path) for path in paths], silent)
    exact, alike = same_bytes(prints), twins(prints)
    assert exact[0] == exact[1]
    assert len(set(exact[:6].tolist())) == 5
    assert alike[0] == alike[1]
    assert alike[2] == alike[3]
    assert alike[4] == alike[5]
    assert len(set(alike[:6].tolist())) == 3
    assert exact[6] == alike[6] == -1
    assert prints.size[:4].tolist() == [[160, 120], [160, 120], [160, 120], [96, 72]]


def test_plain_pictures_of_other_colours_are_no_twins(tmp_path: Path) -> None:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 30, 34)]
    for k, colour in enumerate(colours):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{k}.png")
    numbers = twins(take_fingerprints([ImageFile(tmp_path / f"{k}.png") for k in range(4)], silent))
    assert numbers[0] == numbers[3]
    assert len(set(numbers.tolist())) == 3


def test_size_of_a_large_jpeg_is_the_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    scene(0).resize((800, 600)).save(tmp_path / "a.jpg", exif=exif)
    assert take_fingerprints([ImageFile(tmp_path / "a.jpg")], silent).size.tolist() == [[600, 800]]


def test_what_goes_and_what_stays(twin_set: Path) -> None:
    checked = checked_set(twin_set)
    found = {(f.kind, checked.items.ids[f.item].as_py()): f for f in checked.findings}
    going = {key for key, finding in found.items() if finding.goes}
    assert going == {
        ("exact duplicate", "4.png"),
        ("near duplicate", "5.png"),
        ("leak", "2.png"),  # what is held out stays
        ("unreadable picture", "7.png"),
    }
    assert "nearly the same picture as 6.jpg, which is in test" in found["leak", "2.png"].what


def test_odd_captions() -> None:
    texts = strings(
        ["Boat", "a red  boat", "A red boat", "ein rotes Boot auf dem See", "一只黑色的狗在白色的雪地里奔跑"]
    )
    assert one_word(texts).tolist() == [0]
    ((position, items),) = repeated(texts, np.array([0, 0, 1, 2, 3]))
    assert (position, items.tolist()) == (1, [0, 1])
    english = [f"the {what} is sitting on the table in the kitchen" for what in ("cat", "dog", "cup", "man")]
    found = languages(strings([*english, *texts.to_pylist()]), silent)
    assert found.counts["en"] == 4
    assert {found.other.get(7), found.other.get(8)} == {"de", "zh"}


def test_what_is_left_is_read_again(twin_set: Path) -> None:
    found = survey(twin_set)
    left, removed, second = write_clean(twin_set / "sub.csv", checked_set(twin_set), found.problems)
    assert (left, removed) == (4, 4)
    items = load_items(twin_set / "sub.csv").items
    assert [item.id for item in items] == ["0.png", "1.png", "3.png", "6.jpg"]
    assert [item.id for item in load_items(twin_set / "sub.csv", "test").items] == ["6.jpg"]
    with second.open(encoding="utf-8") as file:
        reasons = {row["item_id"]: row["why"] for row in csv.DictReader(file)}
    assert reasons["4.png"] == "exact duplicate: the same picture as 0.png"
    assert set(reasons) == {"2.png", "4.png", "5.png", "7.png"}
    assert (twin_set / "4.png").exists()


def test_what_is_left_with_pictures_alone_wants_jsonl(tmp_path: Path) -> None:
    for k in range(2):
        scene(k).save(tmp_path / f"{k}.png")
    write(tmp_path / "0.txt", "a caption")
    checked = checked_set(tmp_path)
    with pytest.raises(DataError, match=r"call it \.jsonl"):
        write_clean(tmp_path / "x.csv", checked, [])
    with pytest.raises(DataError, match=r"call it \.csv or \.jsonl"):
        write_clean(tmp_path / "x.txt", checked, [])
    write_clean(tmp_path / "x.jsonl", checked, [])
    assert [item.captions for item in load_items(tmp_path / "x.jsonl").items] == [("a caption",), ()]


def test_an_item_goes_on_without_its_twin_image_and_keeps_its_languages(tmp_path: Path) -> None:
    for k in range(3):
        scene(k).save(tmp_path / f"{k}.png")
    scene(0).save(tmp_path / "again.png")
    write(
        tmp_path / "in.jsonl",
        '{"item_id": "a", "image": ["0.png", "1.png", "again.png"], "t": {"en": "one day", "de": "ein Tag"}}',
        '{"item_id": "b", "image": ["2.png"], "t": {"en": "two days"}}',
    )
    options = ReadOptions(captions=("t.en", "t.de"))
    splits = survey(tmp_path / "in.jsonl", options=options).splits
    with pytest.raises(DataError, match=r"some items have several: call it \.jsonl"):
        write_clean(tmp_path / "x.csv", check(splits, lambda _: lambda *_: None), [])
    left, removed, second = write_clean(tmp_path / "x.jsonl", check(splits, lambda _: lambda *_: None), [])
    assert (left, removed) == (3, 1)
    assert "again.png" in second.read_text()
    items = load_items(tmp_path / "x.jsonl", options=ReadOptions(language="language")).items
    assert [(item.id, len(item.images), item.captions) for item in items] == [
        ("a", 2, ("one day", "ein Tag")),
        ("b", 1, ("two days",)),
    ]
    assert [kind.language for item in items for kind in item.kinds] == ["en", "de", "en"]


def test_shards_are_checked_but_not_written_as_a_table(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": png(1), "a.txt": "one", "b.png": png(1), "b.txt": "two"})
    checked = checked_set(tmp_path / "0.tar")
    assert [finding.kind for finding in checked.findings if finding.goes] == ["exact duplicate"]
    with pytest.raises(DataError, match="these lie in larger files"):
        write_clean(tmp_path / "x.csv", checked, [])


def test_the_sheet_shows_twins_side_by_side(twin_set: Path) -> None:
    page = render(checked_set(twin_set), "What is odd <here>")
    assert "What is odd &lt;here&gt;" in page
    assert page.index("leak: 1") < page.index("exact duplicate: 1")
    assert page.count("data:image/jpeg") >= 6


def test_leaks_that_an_evaluation_sees(twin_set: Path) -> None:
    data = DataConfig(root=str(twin_set / "c.csv"), split={"train": "train", "val": "test"})
    held_out = load_items(twin_set, "test").items
    assert exact_leaks(data, held_out) == []
    (twin_set / "6.jpg").write_bytes((twin_set / "2.png").read_bytes())
    ((path, twin),) = exact_leaks(data, held_out)
    assert (Path(path).name, Path(twin).name) == ("6.jpg", "2.png")


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_checks(twin_set: Path) -> None:
    page = twin_set / "sheet.html"
    code, said = command(twin_set / "c.csv", "--check", "--html", page, "--write", twin_set / "clean.csv")
    assert f"data.root={twin_set / 'clean.csv'}" in said
    assert code == 1
    assert "error: 1 × leak\n  2.png (train): nearly the same picture as 6.jpg, which is in test" in said
    assert "1 × exact duplicate" in said
    assert "4 lines are left" in said
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert command(twin_set / "clean.csv", "--check")[0] == 0
    about = json.loads(CliRunner().invoke(app, ["data", str(twin_set / "c.csv"), "--check", "--json"]).stdout)
    assert about["check"]["leaks"] == 1
    assert {"id": "4.png", "twin": "0.png"}.items() <= about["check"]["findings"][2].items()


def test_options_that_would_do_nothing_are_refused(twin_set: Path) -> None:
    for wrong in (["--html", "x.html"], ["--write", "x.csv"], ["--suspects", "--check"]):
        assert command(twin_set, *wrong)[0] == 2
    result = CliRunner().invoke(app, ["data", str(twin_set), "--suspects"])
    assert "--suspects takes a run" in str(result.exception)


@pytest.fixture
def coloured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of one colour each with its name; two names are swapped. Every model knows colours."""
    names = [list(COLOURS)[k % len(COLOURS)] for k in range(40)]
    for k, name in enumerate(names):
        pixels = np.clip(np.array(COLOURS[name]) + np.random.default_rng(k).integers(-9, 9, 3), 0, 255)
        paint(tmp_path / f"{k}.png", tuple(pixels.tolist()))
    names[10], names[21] = names[21], names[10]
    write(tmp_path / "c.csv", "image,caption", *(f"{k}.png,a {name} sheet" for k, name in enumerate(names)))
    monkeypatch.setattr("unicross.model.TwoTower.load", lambda *_: FakeModel())
    return tmp_path


def test_a_model_says_which_pairs_look_wrong(coloured: Path) -> None:
    about = json.loads(
        CliRunner().invoke(app, ["data", str(coloured), "--check", "--model", "m", "--json"]).stdout
    )["check"]
    suspects = [finding["id"] for finding in about["findings"] if finding["kind"] == "suspect pair"]
    assert sorted(suspects[:2]) == ["10.png", "21.png"]
    assert about["expected wrong"] >= 2


def test_the_pairs_that_a_run_doubts_are_shown(coloured: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.create(tiny.recipe(coloured / "c.csv", tiny.ALIGN, data={"split": {"train": None, "val": None}}))
    code, said = command(run.path, "--suspects", "--html", tmp_path / "doubts.html")
    assert code == 0
    assert {line.split(".png")[0].strip() for line in said.splitlines()[2:4]} == {"10", "21"}
    page = (tmp_path / "doubts.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 40


def test_an_evaluation_says_exact_leaks(coloured: Path, tmp_path: Path) -> None:
    rows = [f"{k}.png,a sheet,{'val' if k < 4 else 'train'}" for k in range(40)]
    write(coloured / "s.csv", "image,caption,split", *rows)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.create(tiny.recipe(coloured / "s.csv", tiny.ALIGN))
    said = CliRunner().invoke(app, ["evaluate", str(run.path)])
    assert (said.exit_code, said.stderr) == (0, "")
    (coloured / "3.png").write_bytes((coloured / "30.png").read_bytes())
    said = CliRunner().invoke(app, ["evaluate", str(run.path)])
    assert said.exit_code == 0
    assert said.stderr.startswith("error: 1 of these 4 pictures are, byte for byte, pictures that the model")
