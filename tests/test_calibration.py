"""How likely a score is a match: the curve, and where it comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fake_model import COLOURS, INFO, FakeModel, paint
from unicross.calibration import Calibration, fit_calibration
from unicross.errors import CheckpointError, QueryError
from unicross.evaluation import evaluate_embeddings
from unicross.model_folder import write_calibration
from unicross.query import Query
from unicross.run import calibration_of
from unicross.search import Searcher
from unicross.store import Store, open_store
from unicross.store.calibrate import calibrate
from unicross.store.index import index


def test_what_is_said_is_how_often_it_happens() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(0.5, 0.1, 40_000), rng.normal(0.4, 0.1, 40_000)
    calibration = fit_calibration(right[:20_000], wrong[:20_000])
    assert calibration is not None
    right, wrong = right[20_000:], wrong[20_000:]
    best = np.concatenate([np.maximum(right, wrong), wrong])
    is_match = np.concatenate([right > wrong, np.zeros(len(wrong), bool)])
    said = np.array([calibration.likelihood(score) for score in best])
    for low in (0.1, 0.3, 0.5):
        of_these = (said > low) & (said < low + 0.2)
        assert is_match[of_these].mean() == pytest.approx(said[of_these].mean(), abs=0.05)


def test_nothing_is_fitted_where_scores_tell_nothing() -> None:
    few = np.linspace(0, 1, 20)
    assert fit_calibration(few + 1, few) is None
    rng = np.random.default_rng(0)
    assert fit_calibration(np.full(1000, -1.0), rng.normal(size=1000)) is None
    assert fit_calibration(rng.normal(size=1000), np.full(1000, -np.inf)) is None


def test_scores_that_part_the_two_give_a_finite_curve() -> None:
    calibration = fit_calibration(np.full(100, 0.9), np.full(100, 0.1))
    assert calibration is not None
    assert calibration.likelihood(0.9) > 0.95
    assert calibration.likelihood(0.1) < 0.05
    assert np.isfinite(calibration.slope)


def test_an_evaluation_calibrates() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(100, 8)).astype(np.float32)
    texts = np.repeat(images, 2, axis=0) + rng.normal(size=(200, 8)).astype(np.float32)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts)]
    calibration = evaluate_embeddings(*unit, np.repeat(np.arange(100), 2)).calibration
    assert calibration is not None
    assert calibration.queries == 200
    assert calibration.likelihood(0.9) > calibration.likelihood(0.5)


def test_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    assert calibration_of(tmp_path) is None
    calibration = Calibration(slope=10, intercept=-3, queries=100)
    write_calibration(tmp_path, calibration)
    assert calibration_of(tmp_path) == calibration
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"calibration\.json: cannot be read.*remove it"):
        calibration_of(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Sixty pictures in shades, the caption of each naming its colour."""
    home = tmp_path_factory.mktemp("calibration")
    lines = ["image,caption"]
    for number in range(60):
        name = list(COLOURS)[number % len(COLOURS)]
        shade = tuple(min(255, value + number) for value in COLOURS[name])
        paint(home / "photos" / f"{number}.png", shade)
        lines.append(f"{number}.png,{name} number {number}")
    (home / "captions.csv").write_text("\n".join(lines))
    store = open_store(str(home / "store"), INFO)
    index(FakeModel(), home / "photos", store, captions=home / "captions.csv")
    return store


def test_a_store_calibrates_on_its_own_captions(store: Store) -> None:
    calibration = calibrate(store)
    assert calibration is not None
    assert calibration.queries == 60


def test_unlikely_hits_are_left_out(store: Store) -> None:
    searcher = Searcher(FakeModel(), store)
    with pytest.raises(QueryError, match="does not know how likely"):
        searcher.find(Query("red", min_score=0.5))
    assert searcher.find(Query("red"))[0].likelihood is None
    store.remember(calibration=Calibration(slope=20, intercept=-18, queries=60))
    hits = searcher.find(Query("red", k=60))
    assert [hit.likelihood for hit in hits] == sorted((hit.likelihood for hit in hits), reverse=True)
    likely = searcher.find(Query("red", k=60, min_score=0.5))
    assert 0 < len(likely) < 60
    assert likely == [hit for hit in hits if (hit.likelihood or 0) >= 0.5]
    assert searcher.find(Query("red", min_score=0.99)) == []
    like = searcher.find(Query(like=hits[0].row.id, k=3))
    assert [replace(hit, likelihood=None) for hit in like] == like


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"words": "red", "min_score": 2}, "between 0 and 1, got 2"),
        ({"words": "red", "kind": "text", "min_score": 0.5}, "by words alone"),
        ({"words": "red", "minus": ["blue"], "min_score": 0.5}, "by words alone"),
        ({"like": "x", "min_score": 0.5}, "by words alone"),
        ({"words": "red", "mode": "text", "min_score": 0.5}, "mode text finds what has the words in it"),
    ],
)
def test_a_threshold_needs_words(query: dict[str, object], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Query(**query)  # type: ignore[arg-type]
