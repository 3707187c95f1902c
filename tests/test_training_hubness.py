"""Correcting hubs at the end of a run."""

import json

import pytest

import tiny
from unicross import TwoTower
from unicross.data.load import load_items
from unicross.errors import RecipeError
from unicross.evaluation import evaluate
from unicross.training import train

STAGE = tiny.ALIGN | {"epochs": 3}


def test_a_run_keeps_the_correction_where_validation_is_better(photos, tmp_path):
    run = tmp_path / "run"
    summary = train(tiny.recipe(photos, STAGE, train={"correct_hubness": True}), run)
    (done,) = tiny.events(run, "hubness")
    looks = [look["rsum"] for look in tiny.events(run, "eval")]
    assert done["without"] == max(looks)
    assert done["corrected"] == (done["rsum"] > done["without"])
    assert summary["metrics"]["rsum"] == max(done["rsum"], done["without"])
    model = TwoTower.load(run)
    assert model.dim == (20 if done["corrected"] else 16)
    again = evaluate(model, load_items(photos, "val").items).metrics["rsum"]
    assert again == pytest.approx(summary["metrics"]["rsum"], abs=1e-6)


def test_without_validation_hubs_are_corrected_unseen(photos, tmp_path):
    run = tmp_path / "run"
    recipe = tiny.recipe(photos, STAGE, train={"correct_hubness": True}, data={"split": {"val": None}})
    train(recipe, run)
    assert TwoTower.load(run).dim == 20
    assert tiny.events(run, "hubness")[0]["corrected"]


def test_a_run_that_is_finished_twice_corrects_once(photos, tmp_path):
    """Killed after the correction and before its summary, a run finishes again."""
    run = tmp_path / "run"
    recipe = tiny.recipe(photos, STAGE, train={"correct_hubness": True}, data={"split": {"val": None}})
    train(recipe, run)
    before = TwoTower.load(run).fingerprint()
    (run / "summary.json").unlink()
    train(recipe, run, resume=True)
    assert TwoTower.load(run).fingerprint() == before
    assert json.loads((run / "summary.json").read_text())


def test_without_an_image_text_loss_there_is_nothing_to_correct(photos):
    with pytest.raises(RecipeError, match=r"correct_hubness is for searching across"):
        tiny.recipe(photos, tiny.UNI, train={"correct_hubness": True})


def test_weights_spread_over_processes_cannot_be_corrected(photos):
    with pytest.raises(RecipeError, match=r"nor with train\.correct_hubness"):
        tiny.recipe(photos, STAGE, train={"shard": True, "correct_hubness": True})
