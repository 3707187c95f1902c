"""Stores of short vectors: axes of a sample of the pictures, kept with the store for all that open it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fake_model import FakeModel, gallery, paint
from test_commands_search import fake, run  # noqa: F401
from unicross.axes import axes_from_text
from unicross.errors import CheckpointError, DataError, StoreError
from unicross.query import Query
from unicross.search import Searcher, open_searcher
from unicross.store import StoreInfo, open_store
from unicross.store import sample as sample_module
from unicross.store.index import index
from unicross.store.sample import sample_axes
from unicross.store.sources import read_rows

SHORT = 4
"""Numbers that say all of pictures of one colour by the fake model: three of the colour and one more."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty pictures of one colour each, in two folders."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 3)).tolist()
    for number, colour in enumerate(colours):
        paint(tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.png", tuple(colour))
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(
    place: Path, dim: int = SHORT, model: FakeModel | None = None, captions: Path | None = None
) -> np.ndarray:
    """The axes [16, dim] of a sample."""
    steps: list[tuple[int, int]] = []
    rows = read_rows(place, captions)
    found = sample_axes(model or FakeModel(), rows, dim, on_progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    return axes_from_text(found, dim)


def found(searcher: Searcher, words: str) -> list[str]:
    return [Path(hit.row.path).name for hit in searcher.find(Query(words, k=5))]


WORDS = ("red", "blue green", "white", "a purple house", "yellow", "black orange")


@pytest.mark.usefixtures("home")
def test_a_short_store_finds_what_the_whole_one_finds() -> None:
    """In principal axes, where the first numbers find other pictures."""
    run("index", "model", "photos", "--store", "whole")
    said = run("index", "model", "photos", "--store", "short", "--dim", str(SHORT))
    assert "40 added" in said.stdout
    whole, short = open_searcher("whole"), open_searcher("short")
    rows = list(whole.store.scan(vectors=True))
    cut = np.stack([row.vector for row in rows])[:, :SHORT]
    cut /= np.linalg.norm(cut, axis=1, keepdims=True)
    shared = {"axes": 0, "first numbers": 0}
    for words in WORDS:
        expected = found(whole, words)
        query = FakeModel().encode_texts([words])[0, :SHORT]
        first = [Path(rows[row].path).name for row in np.argsort(-cut @ query)[:5]]
        shared["axes"] += len({*found(short, words)} & {*expected})
        shared["first numbers"] += len({*first} & {*expected})
    assert shared["axes"] >= 5 * len(WORDS) - 1
    assert shared["first numbers"] <= shared["axes"] - 4
    assert all(row.vector.shape == (SHORT,) for row in short.store.scan(vectors=True))


def test_what_is_made_of_a_short_store_has_its_axes(home: Path) -> None:
    run("index", "model", "photos", "--store", "s", "--dim", str(SHORT))
    about = json.loads(run("store", "info", "s", "--json").stdout)
    assert about["dim"] == SHORT
    assert "axes" not in about  # kilobytes of text
    expected = found(open_searcher("s"), "red")
    run("store", "copy", "s", "copied")
    run("store", "rebuild", "s/embeddings", "rebuilt")
    for name in ("copied", "rebuilt", "copied/embeddings"):
        described = StoreInfo.model_validate_json((home / name / "store.json").read_text())
        assert described.axes == open_store("s").info.axes
        if name != "copied/embeddings":
            assert found(open_searcher(name), "red") == expected


def test_a_short_store_goes_on_with_its_own_axes(home: Path) -> None:
    run("index", "model", "photos", "--store", "s", "--dim", str(SHORT))
    paint(home / "photos" / "new.png", "purple")
    said = run("index", "model", "photos", "--store", "s")
    assert "1 added, 0 updated, 40 unchanged" in said.stdout
    assert found(open_searcher("s"), "purple")[0] == "new.png"
    assert "41 unchanged" in run("index", "model", "photos", "--store", "s", "--dim", str(SHORT)).stdout
    with pytest.raises(StoreError, match="s has vectors of 4 numbers: leave --dim out"):
        run("index", "model", "photos", "--store", "s", "--dim", "5")


def test_pictures_are_drawn_from_all_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        for folder, colour in (("a", (255 - number, 0, 0)), ("z", (0, 0, 255 - number))):
            paint(home / "sorted" / folder / f"{number:02}.png", colour)
    monkeypatch.setattr(sample_module, "SAMPLE", 20)
    model = FakeModel()
    axes = drawn(home / "sorted", 2, model)
    assert model.pictures == 20
    kept = np.linalg.norm(model.encode_texts(["red", "blue"]) @ axes, axis=1)
    assert (kept > 0.9).all()


def test_stored_texts_have_axes_too(home: Path) -> None:
    for number in range(10):
        paint(home / "reds" / f"{number}.png", (255 - number, 0, 0))
    (home / "captions.csv").write_text("image,caption\n0.png,blue\n")
    blue = FakeModel().encode_texts(["blue"])
    assert np.linalg.norm(blue @ drawn(home / "reds", 2)) < 0.9
    assert np.linalg.norm(blue @ drawn(home / "reds", 2, captions=home / "captions.csv")) > 0.99


def test_unreadable_pictures_are_left_out_of_the_sample(home: Path) -> None:
    expected = drawn(home / "photos")
    (home / "photos" / "bad.png").write_bytes(b"no picture")
    np.testing.assert_allclose(np.abs(drawn(home / "photos").T @ expected), np.eye(SHORT), atol=0.01)


def test_a_table_is_sampled_too(home: Path) -> None:
    lines = [f"{path.name},some words" for path in sorted((home / "photos/a").iterdir())]
    (home / "photos/a/shop.csv").write_text("\n".join(["image,caption", *lines]))
    run("index", "model", "photos/a/shop.csv", "--store", "s", "--dim", "4")
    np.testing.assert_array_equal(
        axes_from_text(open_store("s").info.axes, SHORT), drawn(home / "photos/a/shop.csv")
    )


def test_as_many_numbers_as_the_model_has_are_no_axes(home: Path) -> None:
    gallery(home / "few")
    run("index", "model", "few", "--store", "s", "--dim", "16")
    assert open_store("s").info == StoreInfo(
        fingerprint="fake-1", checkpoint=str(home / "model"), dim=16, roots=(str(home / "few"),)
    )


@pytest.mark.parametrize(
    ("dim", "error", "message"),
    [
        ("4", DataError, "vectors of 4 numbers take 16 pictures .* and here are 6: leave --dim out"),
        ("17", CheckpointError, "have 16 numbers, which cannot be cut to 17: give fewer"),
    ],
)
def test_too_few_pictures_and_too_many_numbers_are_refused(
    home: Path, dim: str, error: type[Exception], message: str
) -> None:
    gallery(home / "few")
    with pytest.raises(error, match=message):
        run("index", "model", "few", "--store", "s", "--dim", dim)
    assert not (home / "s").exists()


def test_a_store_of_first_numbers_is_refused(home: Path) -> None:
    open_store("old", StoreInfo(fingerprint="fake-1:5", checkpoint=str(home / "model"), dim=5))
    for refused in (
        lambda: run("search", "old", "red"),
        lambda: run("index", "model", "photos", "--store", "old", "--dim", "5"),
        lambda: index(FakeModel(), home / "photos", open_store("old")),
    ):
        with pytest.raises(StoreError, match=r"first 5 numbers .* index into a new store with --dim 5"):
            refused()


def test_other_axes_are_another_store(home: Path) -> None:
    """Their vectors cannot be compared, though the model and the size are the same."""
    run("index", "model", "photos", "--store", "one", "--dim", str(SHORT))
    paint(home / "photos" / "new.png", (255, 0, 255))
    run("index", "model", "photos", "--store", "other", "--dim", str(SHORT))
    with pytest.raises(StoreError, match="was filled by another model"):
        run("store", "copy", "one", "other")


def test_damaged_axes_are_a_damaged_description(home: Path) -> None:
    run("index", "model", "photos", "--store", "s", "--dim", str(SHORT))
    described = json.loads((home / "s/store.json").read_text())
    (home / "s/store.json").write_text(json.dumps(described | {"axes": described["axes"][:-4]}))
    with pytest.raises(StoreError, match="description is damaged"):
        open_store("s")
