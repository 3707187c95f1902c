"""Untrained weights beside tuned ones: the first look, patience, mixing, and what is forgotten elsewhere."""

import pytest
import torch
from safetensors.torch import load_file

import tiny
from unicross.errors import DataError, RecipeError
from unicross.training import train
from unicross.training.interpolation import mixed

RUINOUS = {"optim": {"image_lr": 0.3, "text_lr": 0.3, "head_lr": 0.3, "warmup": 0.0}}


@pytest.fixture(scope="module")
def begun(photos, tmp_path_factory):
    """A run whose weights others begin with."""
    run = tmp_path_factory.mktemp("begun") / "run"
    train(tiny.recipe(photos, tiny.ALIGN | {"epochs": 6}), run)
    return run


def test_a_mix_lies_between():
    start, tuned = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([1.0, 4.0])}
    assert mixed(start, tuned, 0.25)["w"].tolist() == [0.25, 2.5]


def test_the_best_of_a_run_is_never_worse_than_what_it_began_with(photos, tmp_path, begun):
    run = tmp_path / "run"
    stage = tiny.ALIGN | RUINOUS | {"epochs": 2}
    summary = train(tiny.recipe(photos, stage, train={"start_from": str(begun)}), run)
    first, *later = tiny.events(run, "eval")
    assert first["step"] == 0
    assert all(look["rsum"] < first["rsum"] for look in later)
    assert summary["metrics"]["rsum"] == first["rsum"]
    one, other = (
        load_file(begun / "best" / "model.safetensors"),
        load_file(run / "best" / "model.safetensors"),
    )
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_patience_ends_a_run_that_gets_no_better(photos, tmp_path, begun):
    run = tmp_path / "run"
    stage = tiny.ALIGN | RUINOUS | {"epochs": 9}
    recipe = tiny.recipe(photos, stage, train={"start_from": str(begun), "patience": 2})
    train(recipe, run)
    assert len(tiny.events(run, "epoch")) == 2
    assert "stopped early" in tiny.events(run, "note")[-1]["text"]


def test_interpolation_keeps_the_share_that_validation_likes_best(photos, tmp_path, begun):
    run = tmp_path / "run"
    recipe = tiny.recipe(
        photos, tiny.ALIGN | {"epochs": 2}, train={"start_from": str(begun), "interpolate": True}
    )
    summary = train(recipe, run)
    (mix,) = tiny.events(run, "interpolation")
    assert set(mix["rsums"]) == {"0.1", "0.3", "0.5", "0.7", "0.9", "1"}
    assert summary["metrics"]["rsum"] == max(mix["rsums"].values())
    assert mix["rsums"][f"{mix['share']:g}"] == summary["metrics"]["rsum"]


def test_interpolation_weighs_what_is_forgotten_elsewhere(photos, tmp_path, begun):
    """Ruinous tuning gains nothing here and there: the share that keeps the most of both is taken."""
    run = tmp_path / "run"
    recipe = tiny.recipe(
        tiny.write_set(tmp_path / "new", train=12, val=8),
        tiny.ALIGN | {"epochs": 2},
        train={"start_from": str(begun), "interpolate": True},
        forgetting={"before": str(photos)},
    )
    summary = train(recipe, run)
    (mix,) = tiny.events(run, "interpolation")
    totals = {share: rsum + mix["elsewhere"][share]["before"] for share, rsum in mix["rsums"].items()}
    assert totals[f"{mix['share']:g}"] == max(totals.values())
    assert summary["forgetting"]["before"] == mix["elsewhere"][f"{mix['share']:g}"]["before"]


def test_interpolation_needs_weights_to_mix_with(photos):
    with pytest.raises(RecipeError, match=r"set train\.start_from"):
        tiny.recipe(photos, tiny.ALIGN, train={"interpolate": True})


def test_other_data_are_evaluated_at_every_look(photos, tmp_path, begun):
    other = tiny.write_set(tmp_path / "other", train=10, val=6)
    run = tmp_path / "run"
    recipe = tiny.recipe(
        photos, tiny.ALIGN, train={"start_from": str(begun)}, forgetting={"elsewhere": str(other)}
    )
    train(recipe, run)
    looks = tiny.events(run, "forgetting")
    assert [(look["data"], look["step"] > 0) for look in looks] == [("elsewhere", False), ("elsewhere", True)]
    assert all(0 <= look["rsum"] <= 600 for look in looks)


def test_other_data_that_cannot_be_read_are_named_by_their_key(photos, tmp_path):
    recipe = tiny.recipe(photos, tiny.ALIGN, forgetting={"mugs": str(tmp_path / "gone.csv")})
    with pytest.raises(DataError, match=r"^forgetting\.mugs: .*gone\.csv"):
        train(recipe, tmp_path / "run")
