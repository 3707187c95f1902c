"""Words that match texts: fusion, phrases, languages, and the search that uses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fake_model import INFO, FakeModel, paint
from unicross.calibration import Calibration
from unicross.errors import QueryError
from unicross.fusion import fuse, phrases_of, unquoted
from unicross.query import Query
from unicross.search import Searcher
from unicross.store import Condition, Hit, Row, make_id, open_store
from unicross.store.index import index


def test_what_both_rankings_have_comes_first() -> None:
    assert fuse(["a", "b", "c"], ["d", "b"]) == ["b", "a", "d", "c"]
    assert fuse([], ["x"]) == ["x"]


@pytest.mark.parametrize(
    ("words", "phrases", "plain"),
    [
        ("a dog", [], "a dog"),
        ('a "red boat" and “the sea”', ["red boat", "the sea"], "a red boat and the sea"),
        ("ein „rotes Boot“", ["rotes Boot"], "ein rotes Boot"),
        ("un « bateau rouge »", ["bateau rouge"], "un bateau rouge"),
        ('5" nails', [], '5" nails'),
        ('"" x', [], '"" x'),
    ],
)
def test_quotes_are_read(words: str, phrases: list[str], plain: str) -> None:
    assert phrases_of(words) == phrases
    assert unquoted(words) == plain


TEXTS = {
    "lake/IMG_2024_shore.png": "a red boat on the lake",
    "b.png": "the boat is red",
    "c.png": "一只红色的船在湖上",
    "d.png": "湖の上の赤い船",
    "e.png": "ein Boot auf dem See",
    "f.png": "dogs run over a field",
}


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    home = tmp_path_factory.mktemp("hybrid")
    lines = ["image,caption,author"]
    for name, text in TEXTS.items():
        paint(home / "photos" / name, "blue")
        lines.append(f"{name},{text},{'Ann Müller' if name == 'b.png' else 'bob'}")
    paint(home / "photos" / "red.png", "red")
    (home / "captions.csv").write_text("\n".join(lines))
    store = open_store(str(home / "store"), INFO)
    index(FakeModel(), home / "photos", store, captions=home / "captions.csv")
    return Searcher(FakeModel(), store)


def names(hits: list[Hit]) -> list[str]:
    return [Path(hit.row.path).name for hit in hits]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("dog", ["f.png"]),  # stems
        ("shore", ["IMG_2024_shore.png"]),  # names of files
        ("muller", ["b.png"]),  # columns, and letters without their dots
        ("红色", ["c.png"]),
        ("赤い", ["d.png"]),
        ('"red boat"', ["IMG_2024_shore.png"]),  # not "the boat is red"
        ('"boat red"', []),
        ("nowhere", []),
        ("'; drop table -- (", []),
    ],
)
def test_words_alone(searcher: Searcher, words: str, found: list[str]) -> None:
    hits = searcher.find(Query(words, mode="text"))
    assert names(hits) == found
    assert all(hit.row.kind == "image" for hit in hits)


def test_both_ways(searcher: Searcher) -> None:
    hits = searcher.find(Query("red boat", mode="hybrid", k=3))
    # the picture that is red has no text, those whose texts match are blue
    assert set(names(hits)) == {"red.png", "IMG_2024_shore.png", "b.png"}
    by_vector = {hit.row.id: hit.score for hit in searcher.find(Query("red boat", k=7))}
    assert [by_vector[hit.row.id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    quoted = searcher.find(Query('a "red boat"', mode="hybrid"))
    assert names(quoted) == ["IMG_2024_shore.png"]
    pages = [searcher.find(Query("red boat", mode="hybrid", k=2, offset=start)) for start in (0, 2, 4, 6)]
    together = [hit.row.id for page in pages for hit in page]
    assert together == [hit.row.id for hit in searcher.find(Query("red boat", mode="hybrid", k=7))]


def test_what_has_every_word_is_not_left_out_as_unlikely(searcher: Searcher) -> None:
    searcher.store.remember(calibration=Calibration(slope=20, intercept=-18, queries=60))
    assert names(searcher.find(Query("red boat", min_score=0.5))) == ["red.png"]
    # what has both words is blue
    hits = searcher.find(Query("red boat", mode="hybrid", min_score=0.5))
    assert set(names(hits)) == {"red.png", "IMG_2024_shore.png", "b.png"}
    assert all(hit.likelihood is not None for hit in hits)
    likely = [hit.row.path for hit in hits if (hit.likelihood or 0) >= 0.5]
    assert [Path(path).name for path in likely] == ["red.png"]
    assert names(searcher.find(Query("red dogs", mode="hybrid", min_score=0.5))) == ["red.png"]
    quoted = searcher.find(Query('a sunny "red boat"', mode="hybrid", min_score=0.99))
    assert names(quoted) == ["IMG_2024_shore.png"]
    by_ann = [Condition("author", "=", "Ann Müller")]
    assert names(searcher.find(Query("red boat", mode="hybrid", min_score=0.5, where=by_ann))) == ["b.png"]


def test_conditions_and_texts(searcher: Searcher) -> None:
    bob = [Condition("author", "=", "bob")]
    assert names(searcher.find(Query("boat", mode="text", where=bob))) == ["IMG_2024_shore.png"]
    texts = searcher.find(Query("boat", mode="text", kind="text"))
    assert {hit.row.caption for hit in texts} >= {"the boat is red", "a red boat on the lake"}
    assert all(hit.row.kind == "text" for hit in texts)


def test_rows_that_came_after_the_index_match_too(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), INFO)
    vector = np.eye(16, dtype=np.float32)[0]
    old, new = (
        Row(make_id("image", name), "image", name, caption=f"a {name} boat", vector=vector)
        for name in ("old", "new")
    )
    store.upsert([old])
    store.optimize()
    store.upsert([new])
    assert {hit.row.id for hit in store.match("boat", 5)} == {old.id, new.id}
    store.close()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"words": "red", "mode": "magic"}, "mode must be one of vector, text, hybrid, got 'magic'"),
        ({"like": "x", "mode": "hybrid"}, "no words in the query"),
    ],
)
def test_a_wrong_mode_is_a_sentence(query: dict[str, str], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query(**query)  # type: ignore[arg-type]


def test_milvus_says_that_it_has_no_words(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    store = open_store(f"{tmp_path}/lite.db/photos", INFO)
    with pytest.raises(QueryError, match="in stores in a folder only: search by vectors"):
        Searcher(FakeModel(), store).find(Query("red", mode="hybrid"))
    store.close()
