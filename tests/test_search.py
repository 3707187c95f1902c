from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fake_model import COLOURS, FakeModel, gallery, paint
from unicross.errors import DataError, StoreError
from unicross.search import Searcher, open_searcher
from unicross.store import Condition, Hit, StoreInfo, open_store
from unicross.store.index import index


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    home = tmp_path_factory.mktemp("search")
    photos = gallery(home / "photos")
    captions = home / "captions.csv"
    captions.write_text("image,caption\nred.png,a red wall\nblue.png,blue sea\n")
    model = FakeModel()
    store = open_store(
        str(home / "store"), StoreInfo(fingerprint=model.fingerprint(), checkpoint="gone", dim=16)
    )
    index(model, photos, store, captions=captions)
    return Searcher(model, store)


def names(hits: list[Hit]) -> list[str]:
    return [Path(hit.row.path).stem for hit in hits]


def test_by_text_finds_pictures(searcher: Searcher) -> None:
    for colour in ("red", "blue", "green", "yellow", "white", "black"):
        hits = searcher.by_text(colour, 3)
        assert names(hits)[0] == colour
        assert hits[0].score > hits[1].score
        assert hits[0].row.kind == "image"
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_by_image_finds_pictures_and_texts(searcher: Searcher, tmp_path: Path) -> None:
    path = paint(tmp_path / "query.png", "blue", (50, 30))
    pixels = np.full((20, 20, 3), COLOURS["blue"], np.uint8)
    for query in (path, str(path), Image.open(path), pixels):
        assert names(searcher.by_image(query, 1)) == ["blue"]
        (text,) = searcher.by_image(query, 1, kind="text")
        assert text.row.caption == "blue sea"


def test_by_both_moves_from_words_to_picture(searcher: Searcher, tmp_path: Path) -> None:
    path = paint(tmp_path / "query.png", "blue")
    assert names(searcher.by_both("yellow", path, 1, weight=0)) == ["yellow"]
    assert names(searcher.by_both("yellow", path, 1, weight=1)) == ["blue"]
    assert set(names(searcher.by_both("white", path, 2, weight=0.5))) == {"white", "blue"}


def test_by_id_gives_the_others(searcher: Searcher) -> None:
    (red,) = searcher.by_text("red", 1)
    others = searcher.by_id(red.row.id, 10)
    assert len(others) == 5
    assert "red" not in names(others)
    (text,) = searcher.by_id(red.row.id, 1, kind="text")
    assert text.row.caption == "a red wall"


def test_minus_takes_away(searcher: Searcher) -> None:
    plain = {name: rank for rank, name in enumerate(names(searcher.by_text("white", 6)))}
    without = {name: rank for rank, name in enumerate(names(searcher.by_text("white", 6, minus=["yellow"])))}
    assert without["yellow"] > plain["yellow"]
    with pytest.raises(StoreError, match="nothing is left"):
        searcher.by_text("red", 1, minus=["red", "red"])


def test_filters_and_paging(searcher: Searcher) -> None:
    where = [Condition("album", "=", "a")]
    assert set(names(searcher.by_text("red", 10, where=where))) == {"blue", "green"}
    everything = names(searcher.by_text("red", 6))
    assert names(searcher.by_text("red", 2, offset=2)) == everything[2:4]
    assert searcher.by_text("red", 2, offset=6) == []


def test_bad_queries_get_a_sentence(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="search text is empty"):
        searcher.by_text("  ")
    with pytest.raises(StoreError, match="no row with the id 'nobody'"):
        searcher.by_id("nobody")
    with pytest.raises(StoreError, match="between 0 and 1"):
        searcher.by_both("red", np.zeros((4, 4, 3), np.uint8), weight=1.5)
    with pytest.raises(DataError, match=r"missing\.png"):
        searcher.by_image(tmp_path / "missing.png")


def test_a_moved_checkpoint_is_named(searcher: Searcher) -> None:
    with pytest.raises(StoreError, match=r"was at gone and is not there any more.*--model"):
        open_searcher(searcher.store.address)


def test_another_model_is_refused(searcher: Searcher) -> None:
    with pytest.raises(StoreError, match="filled by another model"):
        Searcher(FakeModel("other"), searcher.store)
