"""The commands around a store: index, search, embed, store, on the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fake_model import FakeModel, gallery, paint
from unicross.commands.embed import embed
from unicross.commands.index import index
from unicross.commands.search import search
from unicross.commands.store import app as store_app
from unicross.errors import DataError, StoreError, UnicrossError
from unicross.store import open_store

app = typer.Typer()
for command in (index, search, embed):
    app.command()(command)
app.add_typer(store_app, name="store")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unicross.model.TwoTower.load", lambda path, device=None: FakeModel())  # noqa: ARG005


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    gallery(tmp_path / "photos")
    (tmp_path / "model").mkdir()
    (tmp_path / "captions.csv").write_text("image,caption\nred.png,a [bold]red[/bold] <wall>\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, UnicrossError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_index_then_search(home: Path) -> None:
    said = run("index", "model", "photos", "--store", "s", "--captions", "captions.csv")
    assert "7 added, 0 updated, 0 unchanged, 0 removed; the store has 7 rows" in said.stdout
    report = json.loads(run("index", "model", "photos", "--store", "s", "--json").stdout)
    assert (report["unchanged"], report["rows"]) == (6, 7)
    table = run("search", "s", "red", "-k", "2").stdout
    assert "1.000" in table
    assert "[bold]red[/bold]" in table.replace("\n", "")  # captions are no markup
    assert "caption" in table.splitlines()[0]
    assert "caption" not in run("search", "s", "blue", "-k", "1").stdout.splitlines()[0]  # it would be empty
    hits = json.loads(run("search", "s", "--image", "photos/a/blue.png", "-k", "1", "--json").stdout)
    assert hits[0]["path"] == str(home / "photos/a/blue.png")
    others = json.loads(run("search", "s", "--like", hits[0]["id"], "--where", "album=b", "--json").stdout)
    assert {Path(hit["path"]).name for hit in others} == {"white.png", "black.bmp"}
    texts = json.loads(run("search", "s", "--image", "photos/red.png", "--texts", "--json").stdout)
    assert texts[0]["caption"] == "a [bold]red[/bold] <wall>"


def test_search_says_what_is_missing(home: Path) -> None:
    with pytest.raises(StoreError, match="no store at nowhere"):
        run("search", "nowhere", "red")
    run("index", "model", "photos", "--store", "s")
    assert CliRunner().invoke(app, ["search", "s"]).exit_code == 2
    (home / "model").rename(home / "moved")
    with pytest.raises(StoreError, match="not there any more"):
        run("search", "s", "red")
    assert "red.png" in run("search", "s", "red", "--model", "moved", "--json").stdout


def test_a_folder_without_pictures_is_a_mistake(home: Path) -> None:
    (home / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no pictures in it"):
        run("index", "model", "empty", "--store", "s")
    assert not (home / "s").exists()


def test_a_store_is_not_copied_to_itself(home: Path) -> None:
    run("index", "model", "photos", "--store", "s")
    with pytest.raises(StoreError, match="cannot be copied to itself"):
        run("store", "copy", "s", str(home / "s"))


def test_unreadable_files_are_listed(home: Path) -> None:
    (home / "photos" / "bad.png").write_bytes(b"no picture")
    said = run("index", "model", "photos", "--store", "s")
    assert "1 not taken:" in said.stderr
    assert "bad.png: not an image" in said.stderr


def test_watch_takes_in_what_comes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        assert seconds == 3
        looks += 1
        if looks == 2:
            paint(home / "photos" / "new.png", "purple")
        if looks == 3:
            (home / "photos" / "bad.png").write_bytes(b"no picture")
        if looks == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    said = CliRunner().invoke(app, ["index", "model", "photos", "--store", "s", "--watch", "--every", "3"])
    added = [line.split(": ")[1].split(",")[0] for line in said.stdout.splitlines()]
    assert added == ["6 added", "1 added", "0 added"]
    assert said.stderr.count("bad.png: not an image") == 1  # told once, though nothing else came


def test_a_sheet_shows_the_hits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("index", "model", "photos", "--store", "s", "--captions", "captions.csv")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (home / "photos" / "b" / "black.bmp").unlink()
    run("search", "s", "red", "--sheet", "hits.html", "--open")
    page = (home / "hits.html").read_text()
    assert opened == [(home / "hits.html").as_uri()]
    assert page.count("data:image/jpeg;base64,") == 5
    assert page.count("cannot be read any more") == 1
    assert "&lt;wall&gt;" in page
    assert "<wall>" not in page


def test_embed_then_rebuild(home: Path) -> None:
    said = run("embed", "model", "photos", "--out", "vectors", "--captions", "captions.csv")
    assert "7 embedded" in said.stdout
    assert (
        "0 embedded, 0 updated, 7 unchanged"
        in run("embed", "model", "photos", "--out", "vectors", "--captions", "captions.csv").stdout
    )
    (home / "captions.csv").write_text("image,caption\nred.png,other words\n")
    said = run("embed", "model", "photos", "--out", "vectors", "--captions", "captions.csv")
    assert "1 embedded, 1 updated, 5 unchanged" in said.stdout
    assert "8 rows" in run("store", "rebuild", "vectors", "s").stdout
    hits = json.loads(run("search", "s", "red", "-k", "1", "--json").stdout)
    assert (Path(hits[0]["path"]).name, hits[0]["caption"]) == ("red.png", "other words")


@pytest.mark.parametrize("command", [("embed", "--out"), ("index", "--store")])
def test_a_table_is_embedded_and_indexed_with_its_columns(home: Path, command: tuple[str, str]) -> None:
    (home / "photos" / "shop.csv").write_text("image,caption,year\nred.png,a red one,1999\n")
    name, option = command
    run(name, "model", "photos/shop.csv", option, "made")
    if name == "embed":
        run("store", "rebuild", "made", "store")
    hits = json.loads(
        run("search", "store" if name == "embed" else "made", "red", "--where", "year>1990", "--json").stdout
    )
    assert [(hit["caption"], hit["year"]) for hit in hits] == [("a red one", 1999)]


@pytest.mark.parametrize("command", [("embed", "--out"), ("index", "--store")])
def test_a_table_says_which_columns_it_has(home: Path, command: tuple[str, str]) -> None:
    (home / "photos" / "shop.jsonl").write_text(
        '{"id": "a", "shots": {"front": "red.png", "back": "a/blue.png"}, "en": {"title": "red"}, "price": 7}'
    )
    name, option = command
    place = ("model", "photos/shop.jsonl", option, "made")
    with pytest.raises(DataError, match="no image and no caption column among id, shots"):
        run(name, *place)
    assert name == "embed" or not Path("made").exists()
    run(name, *place, "data.image=shots", "data.caption=en.title")
    if name == "embed":
        run("store", "rebuild", "made", "store")
    store = open_store("store" if name == "embed" else "made")
    images = {Path(row.path).name: dict(row.extra) for row in store.scan() if row.kind == "image"}
    own = {"item": "red.png", "id_": "a", "price": 7}
    assert images == {"red.png": own, "blue.png": own}
    said = CliRunner().invoke(app, [name, *place, "photos/other.jsonl"])
    assert said.exit_code == 2
    assert "of several files, their folder" in " ".join(said.output.replace("│", " ").split())


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", [("embed", "--out"), ("index", "--store")])
def test_a_wrong_place_is_told_before_a_model_is_fetched(command: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        run(command[0], "no-model", "nowhere", command[1], "made")
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("place", "more", "what"),
    [
        ("nowhere.tar", (), "nowhere.tar: no such file or folder: give a folder of pictures, a table"),
        ("empty", (), "empty: no pictures in it"),
        (
            "captions.csv",
            ("--captions", "captions.csv"),
            "is read with its own captions, .* leave out --captions",
        ),
        ("photos/red.png", (), "no data found"),
        ("http://host/x", (), "data are not fetched from web pages"),
    ],
)
@pytest.mark.parametrize("command", [("embed", "--out"), ("index", "--store")])
def test_what_cannot_be_read_is_a_sentence(
    home: Path, command: tuple[str, str], place: str, more: tuple[str, ...], what: str
) -> None:
    (home / "empty").mkdir()
    with pytest.raises(DataError, match=what):
        run(command[0], "model", place, command[1], "made", *more)


def test_a_column_called_score_hides_no_score(home: Path) -> None:
    (home / "captions.csv").write_text("image,caption,score\nred.png,a red wall,7\n")
    run("index", "model", "photos", "--store", "s", "--captions", "captions.csv")
    (hit,) = json.loads(run("search", "s", "red", "-k", "1", "--json").stdout)
    assert hit["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("home")
def test_a_sheet_that_cannot_be_written_is_a_sentence() -> None:
    run("index", "model", "photos", "--store", "s")
    said = CliRunner().invoke(app, ["search", "s", "red", "--sheet", "no/hits.html"])
    assert said.exit_code == 2
    assert "cannot be written" in said.output


def test_store_info_copy_and_rebuild(home: Path) -> None:
    run("index", "model", "photos", "--store", "s", "--captions", "captions.csv")
    about = json.loads(run("store", "info", "s", "--json").stdout)
    assert about["rows"] == {"image": 6, "text": 1}
    assert about["checkpoint"] == str(home / "model")
    assert "7 rows" in run("store", "copy", "s", "copied").stdout
    assert "7 rows" in run("store", "rebuild", "s/embeddings", "rebuilt").stdout
    ids = {row.id for row in open_store("s").scan()}
    assert {row.id for row in open_store("copied").scan()} == ids
    assert {row.id for row in open_store("rebuilt").scan()} == ids


def test_thumbnails_are_made_told_and_refused(home: Path) -> None:
    run("index", "model", "photos", "--store", "s")
    assert (
        "\n6 thumbnails made\n"
        in run("index", "model", "photos", "--store", "s", "--thumbnails", "64").stdout
    )
    about = json.loads(run("store", "info", "s", "--json").stdout)["thumbnails"]
    assert (about["side"], about["pictures"]) == (64, 6)
    for side, store, message in [("9", "new", "give 64 to 2048"), ("512", "x.db/y", "give --store a folder")]:
        said = CliRunner().invoke(app, ["index", "model", "photos", "--store", store, "--thumbnails", side])
        assert said.exit_code != 0
        assert message in str(said.exception)
    assert not (home / "new").exists()


def test_items_without_a_picture_are_told(home: Path) -> None:
    (home / "rows.csv").write_text("image,caption\nphotos/red.png,red\n,green\n,blue\n")
    said = run("index", "model", "rows.csv", "--store", "s")
    assert "2 items have no picture: their texts alone were added" in said.stderr
    assert "no picture" not in run("index", "model", "photos", "--store", "other").stderr


def test_a_filter_that_nothing_meets_is_told_with_what_is_there(home: Path) -> None:
    rows = '{"image": "photos/red.png", "title": {"en": "red", "de": "rot"}}\n'
    (home / "rows.jsonl").write_text(rows)
    run("index", "model", "rows.jsonl", "--store", "s", "data.caption=[title.en,title.de]")
    said = run("search", "s", "red", "--texts", "--where", "language=fr").stderr
    assert "texts with language=fr: none; there are " in said
    assert {"de", "en"} <= set(said.replace(",", " ").split())
    said = run("search", "s", "red", "--where", "language=en").stderr
    assert "pictures with language=en: none; no pictures have that column" in said
    assert "none;" not in run("search", "s", "red", "--texts", "--where", "language=en").stderr
