from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_model import COLOURS, INFO, FakeModel, gallery, paint
from unicross.errors import DataError, QueryError, StoreError, UnknownIdError
from unicross.folding import near_by_spread, near_duplicates
from unicross.query import Query
from unicross.search import Searcher, open_searcher
from unicross.store import Condition, Hit, Row, StoreInfo, open_store
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


def test_words_find_pictures(searcher: Searcher) -> None:
    for colour in ("red", "blue", "green", "yellow", "white", "black"):
        hits = searcher.find(Query(colour, k=3))
        assert names(hits)[0] == colour
        assert hits[0].score > hits[1].score
        assert hits[0].row.kind == "image"
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_a_picture_finds_pictures_and_texts(searcher: Searcher, tmp_path: Path) -> None:
    path = paint(tmp_path / "query.png", "blue", (50, 30))
    pixels = np.full((20, 20, 3), COLOURS["blue"], np.uint8)
    for image in (path, str(path), Image.open(path), pixels):
        assert names(searcher.find(Query(image=image, k=1))) == ["blue"]
        (text,) = searcher.find(Query(image=image, k=1, kind="text"))
        assert text.row.caption == "blue sea"


def test_weight_moves_from_words_to_picture(searcher: Searcher, tmp_path: Path) -> None:
    path = paint(tmp_path / "query.png", "blue")
    assert names(searcher.find(Query("yellow", path, weight=0, k=1))) == ["yellow"]
    assert names(searcher.find(Query("yellow", path, weight=1, k=1))) == ["blue"]
    assert set(names(searcher.find(Query("white", path, weight=0.5, k=2)))) == {"white", "blue"}


def test_like_gives_the_others(searcher: Searcher) -> None:
    (red,) = searcher.find(Query("red", k=1))
    others = searcher.find(Query(like=red.row.id))
    assert len(others) == 5
    assert "red" not in names(others)
    (text,) = searcher.find(Query(like=red.row.id, k=1, kind="text"))
    assert text.row.caption == "a red wall"


def test_like_reads_the_row_once(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    (red,) = searcher.find(Query("red", k=1))
    get, asked = searcher.store.get, []
    monkeypatch.setattr(searcher.store, "get", lambda ids: asked.append(ids) or get(ids))
    searcher.find(Query(like=red.row.id))
    assert asked == [[red.row.id]]


def test_minus_takes_away(searcher: Searcher) -> None:
    plain = {name: rank for rank, name in enumerate(names(searcher.find(Query("white", k=6))))}
    hits = searcher.find(Query("white", minus=["yellow"], k=6))
    without = {name: rank for rank, name in enumerate(names(hits))}
    assert without["yellow"] > plain["yellow"]
    with pytest.raises(QueryError, match="nothing is left"):
        searcher.find(Query("red", minus=["red", "red"]))


def test_near_duplicates_become_one_hit(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number in range(3):
        paint(photos / f"red{number}.png", (220 - number, 30, 30))
        paint(photos / f"blue{number}.png", (40, 60, 220 - number))
    store = open_store(str(tmp_path / "store"), INFO)
    index(FakeModel(), photos, store)
    searcher = Searcher(FakeModel(), store)
    assert len(searcher.find(Query("red"))) == 6
    hits = searcher.find(Query("red", fold=True))
    assert [name[:-1] for name in names(hits)] == ["red", "blue"]
    assert [len(hit.others) for hit in hits] == [2, 2]
    assert {name[:-1] for name in names(list(hits[0].others))} == {"red"}
    (second,) = searcher.find(Query("red", fold=True, k=1, offset=1))
    assert second.row.id == hits[1].row.id
    assert searcher.find(Query("red", fold=True, offset=2)) == []


def test_the_pictures_of_an_item_become_one_hit(tmp_path: Path) -> None:
    for number, shade in enumerate([(210, 30, 30), (200, 30, 30), (40, 60, 220), (50, 60, 220)]):
        paint(tmp_path / f"{number}.png", shade)
    table = tmp_path / "products.jsonl"
    table.write_text(
        '{"item_id": "shoe", "image": ["0.png", "3.png"], "caption": "a red shoe"}\n'
        '{"item_id": "bag", "image": "1.png", "caption": "a red bag"}\n'
        '{"item_id": "hat", "image": "2.png", "caption": "a blue hat"}\n'
    )
    store = open_store(str(tmp_path / "store"), INFO)
    index(FakeModel(), table, store)
    searcher = Searcher(FakeModel(), store)
    assert len(searcher.find(Query("red"))) == 4
    hits = searcher.find(Query("blue", by="item"))
    assert {hit.row.extra["item"]: names([*hit.others]) for hit in hits} == {
        "hat": [],
        "shoe": ["0"],
        "bag": [],
    }
    assert names(hits)[:2] in (["2", "3"], ["3", "2"])
    assert len(searcher.find(Query("red", by="item", k=2))) == 2
    with pytest.raises(QueryError, match="by: no column 'sku'"):
        searcher.find(Query("red", by="sku"))


def test_an_item_shows_all_its_pictures_however_far_apart_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    store = open_store(str(tmp_path / "store"), INFO)
    rows = []
    for number in range(400):  # four items: the first has the 130 best pictures
        item, place = ("near", number) if number < 130 else (f"far{number % 3}", 200 + number)
        vector = np.append(np.cos(place / 400), np.zeros(15)).astype(np.float32)
        vector[1:] = rng.standard_normal(15)
        vector[1:] *= np.sin(place / 400) / np.linalg.norm(vector[1:])
        rows.append(Row(f"{number:03}", "image", f"/{number}", extra={"item": item}, vector=vector))
    rows.append(Row("alone", "image", "/alone", vector=-np.eye(16, dtype=np.float32)[0]))
    store.upsert(rows)
    probe = Row("probe", "text", caption="probe", vector=np.eye(16, dtype=np.float32)[0])
    store.upsert([probe])
    hits = Searcher(FakeModel(), store).find(Query(like="probe", by="item", k=5))
    assert [hit.row.extra.get("item") for hit in hits[:1]] == ["near"]
    assert {len(hit.others) for hit in hits} == {129, 89, 0}
    assert hits[-1].row.id == "alone"
    for hit in hits:
        scores = [hit.score, *(other.score for other in hit.others)]
        assert scores == sorted(scores, reverse=True)
        assert {other.row.extra["item"] for other in hit.others} <= {hit.row.extra.get("item")}


def test_what_is_folded_twice_is_not_lost(tmp_path: Path) -> None:
    shades = {"a0": (210, 30, 30), "a1": (210, 31, 30), "a2": (40, 60, 220), "b0": (210, 200, 30)}
    table = tmp_path / "items.jsonl"
    for name, shade in shades.items():
        paint(tmp_path / f"{name}.png", shade)
    table.write_text(
        '{"item_id": "a", "image": ["a0.png", "a1.png", "a2.png"], "caption": "a"}\n'
        '{"item_id": "b", "image": ["b0.png"], "caption": "b"}\n'
    )
    store = open_store(str(tmp_path / "store"), INFO)
    index(FakeModel(), table, store)
    hits = Searcher(FakeModel(), store).find(Query("red", by="item", fold=True))
    groups = [sorted(names([hit, *hit.others])) for hit in hits]
    assert groups == [["a0", "a1", "a2"], ["b0"]]


def test_groups_do_not_depend_on_what_follows() -> None:
    angles = np.array([0.0, 0.2, 0.4, 0.1, 2.0, 0.5])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = near_duplicates(vectors, near=float(np.cos(0.25)))
    assert groups == [0, 0, 2, 0, 4, 2]
    assert near_duplicates(vectors[:4], near=float(np.cos(0.25))) == groups[:4]


def test_a_tenth_of_the_distance_of_two_random_rows_is_near() -> None:
    sixty_degrees = np.array([[1, 0], [0.5, 0.75**0.5]] * 2, np.float32)  # pairs: four of .5, two of 1
    assert near_by_spread(sixty_degrees) == pytest.approx(1 - 0.1 * (1 - 4 / 6))
    assert near_by_spread(np.ones((50, 1), np.float32)) == 0.999


def test_what_is_near_depends_on_how_near_the_pictures_of_the_store_are(tmp_path: Path) -> None:
    """Sixty pictures and a copy of each at a cosine of .93: alone, and with a part that all of them share."""
    rng = np.random.default_rng(0)
    own, noise = np.linalg.qr(rng.standard_normal((128, 128)))[0].reshape(2, 64, 128)[:, :60]
    copies = 0.93 * own + (1 - 0.93**2) ** 0.5 * noise  # [60, D]
    apart = np.concatenate([own, copies])  # two random ones: 0
    crowded = np.concatenate([apart, np.full((120, 1), 3.0)], axis=1) / 10**0.5  # two random ones: .9
    for name, vectors in (("apart", np.pad(apart, [(0, 0), (0, 1)])), ("crowded", crowded)):
        info = StoreInfo(fingerprint=FakeModel().fingerprint(), checkpoint="gone", dim=129)
        store = open_store(str(tmp_path / name), info)
        store.upsert(
            [
                Row(f"{number:03}", "image", f"/{number}", vector=vector.astype(np.float32))
                for number, vector in enumerate(vectors)
            ]
        )
        searcher = Searcher(FakeModel(), store)
        hits = searcher.find(Query(like="000", k=60, fold=True))
        groups = [{int(hit.row.id) % 60, *(int(other.row.id) % 60 for other in hit.others)} for hit in hits]
        assert all(len(group) == 1 for group in groups)
        assert sum(bool(hit.others) for hit in hits) > 50
        assert len(searcher.find(Query(like="000", k=60, fold=True, near=0.5))) == (
            60 if name == "apart" else 1
        )
        assert not any(hit.others for hit in searcher.find(Query(like="000", k=60, fold=True, near=0.999)))
        store.close()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"near": 0.9}, "ask for fold too"),
        ({"fold": True, "near": 0.0}, "above 0 and up to 1, got 0"),
        ({"fold": True, "near": float("nan")}, "above 0 and up to 1, got nan"),
    ],
)
def test_a_wrong_cosine_to_fold_from_is_a_sentence(query: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query("red", **query)


def test_a_function_may_put_hits_into_its_own_order(searcher: Searcher) -> None:
    seen: list[Hit] = []

    def backwards(query: Query, hits: Sequence[Hit]) -> list[Hit]:
        assert query.words == "red"
        seen.extend(hits)
        return list(hits)[::-1]

    hits = searcher.find(Query("red", k=2, offset=1), rerank=backwards)
    assert names(hits) == names(searcher.find(Query("red", k=6)))[::-1][1:3]
    assert len(seen) == 6
    assert all(hit.row.vector is not None for hit in seen)


def test_filters_and_paging(searcher: Searcher) -> None:
    where = [Condition("album", "=", "a")]
    assert set(names(searcher.find(Query("red", where=where)))) == {"blue", "green"}
    everything = names(searcher.find(Query("red", k=6)))
    assert names(searcher.find(Query("red", k=2, offset=2))) == everything[2:4]
    assert searcher.find(Query("red", k=2, offset=6)) == []


PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "search text is empty"),
        ({"words": "  "}, "search text is empty"),
        ({"words": "", "image": PIXELS}, "search text is empty"),
        ({"words": "red", "minus": [" "]}, "search text is empty"),
        ({"words": "red", "minus": "people"}, "put the one text into a list"),
        ({"words": "red", "like": "x"}, "not both"),
        ({"image": PIXELS, "like": "x"}, "not both"),
        ({"words": "red", "image": PIXELS, "weight": 1.5}, "between 0 and 1"),
        ({"words": "red", "image": PIXELS, "weight": float("nan")}, "between 0 and 1"),
        ({"words": "red", "kind": "sound"}, "one of image, text, got 'sound'"),
        ({"words": "red", "k": 0}, "k must be at least 1"),
        ({"words": "red", "offset": 10_000}, "at most 10000"),
    ],
)
def test_a_query_that_cannot_be_answered_gets_a_sentence(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query(**parts)


def test_what_is_not_there_gets_a_sentence(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(UnknownIdError, match="no row with the id 'nobody'"):
        searcher.find(Query(like="nobody"))
    with pytest.raises(DataError, match=r"missing\.png"):
        searcher.find(Query(image=tmp_path / "missing.png"))


def test_a_moved_checkpoint_is_named(searcher: Searcher) -> None:
    with pytest.raises(StoreError, match=r"was at gone and is not there any more.*--model"):
        open_searcher(searcher.store.address)


def test_another_model_is_refused(searcher: Searcher) -> None:
    with pytest.raises(StoreError, match="filled by another model"):
        Searcher(FakeModel("other"), searcher.store)
