"""Heads that are fitted before the towers move."""

import numpy as np
import pytest
import torch

import tiny
from pretrained import make_pair
from training_parts import dataset_of, prepared
from unicross.data.items import Item
from unicross.data.load import read_splits
from unicross.errors import RecipeError
from unicross.model import TwoTower
from unicross.recipe import make_recipe
from unicross.stage import FrozenLayers
from unicross.streams import stream
from unicross.training import head_fitting, loop, train
from unicross.training.embedding import validate
from unicross.training.head_fitting import fit_heads
from unicross.training.optim import freeze

FIRST = tiny.ALIGN | {"fit_heads": True}


@pytest.mark.parametrize("new", [False, True])
def test_only_heads_and_temperature_move_and_retrieval_gets_better(photos, new):
    _, model, data = prepared(photos, FIRST, alone=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rsum = validate(model, data).metrics["rsum"]
    spent, _ = fit_heads(model, data, np.random.default_rng(0), new=new)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"image.cross.weight", "text.cross.weight", "log_scale"}
    assert spent == {"image": 24, "text": 72}  # images and texts only have nothing to say here
    assert validate(model, data).metrics["rsum"] > rsum + 40
    assert all(parameter.requires_grad for parameter in model.parameters())


def on_a_pair(photos, family, home):
    """A stage that begins with fitted heads, of a pretrained pair."""
    raw = tiny.raw_recipe(photos, FIRST)
    raw["data"]["max_tokens"] = 20
    return make_recipe(raw | {"model": {"pair": str(make_pair(family, home / "pair"))}})


@pytest.mark.parametrize(
    ("family", "frozen", "moving"),
    [
        ("clip", [], {"image.cross.weight", "text.cross.weight", "log_scale"}),
        ("clip", ["image_head"], {"text.cross.weight", "log_scale"}),
        (
            "siglip",
            [],
            {"text.cross.weight", "text.cross.bias", "log_scale", "bias"},
        ),  # its pictures have none
    ],
)
def test_what_a_pair_has_of_heads_is_fitted_from_what_it_was(photos, tmp_path, family, frozen, moving):
    recipe = on_a_pair(photos, family, tmp_path)
    model, items = TwoTower.create(recipe.model), read_splits(recipe.data)[0]
    data = dataset_of(items, model, recipe, side=model.config.image_size)
    freeze(model, frozen, FrozenLayers())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rsum = validate(model, data).metrics["rsum"]
    fit_heads(model, data, np.random.default_rng(0), model.objective)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == moving
    assert validate(model, data).metrics["rsum"] > rsum + 40


def test_a_pair_without_a_head_that_moves_is_refused_before_the_first_step(photos, tmp_path):
    raw = on_a_pair(photos, "siglip", tmp_path).model_dump()
    raw["stages"][0]["freeze"] = ["text_head"]
    with pytest.raises(RecipeError, match="this pair has none that is not frozen"):
        train(make_recipe(raw), tmp_path / "run")


def test_a_head_makes_the_same_of_features_here_as_in_its_tower(photos, tmp_path):
    model = TwoTower.create(on_a_pair(photos, "siglip", tmp_path).model)
    rows = 7 * torch.randn(5, model.text.cross.in_features)
    with torch.no_grad():
        model.text.cross.bias.normal_()
        weight, bias = model.text.cross.weight, model.text.cross.bias
        made = head_fitting._embedded(rows, weight, bias, 0.0, torch.Generator())
        assert torch.allclose(made, model.text.embed(rows), atol=1e-5)


@pytest.mark.parametrize("new", [False, True])
def test_equal_seeds_give_equal_heads_of_a_sample(photos, monkeypatch, new):
    monkeypatch.setattr(head_fitting, "MOST_PAIRS", 10)
    fitted = []
    for seed in (0, 0, 1):
        _, model, data = prepared(photos, FIRST)
        spent, _ = fit_heads(model, data, np.random.default_rng(seed), new=new)
        assert spent == {"image": 10, "text": 30}
        fitted.append(model.image.cross.weight.detach().numpy())
    assert np.array_equal(fitted[0], fitted[1])
    assert not np.array_equal(fitted[0], fitted[2])


def test_a_stage_fits_heads_once_and_its_clusters_are_made_with_them(photos, tmp_path, monkeypatch):
    order = []

    def watched(name, make):
        def call(*args, **kwargs):
            order.append(name)
            return make(*args, **kwargs)

        return call

    monkeypatch.setattr(loop, "fit_heads", watched("heads", loop.fit_heads))
    monkeypatch.setattr(loop, "plan_epoch", watched("plan", loop.plan_epoch))
    stage = tiny.SHARPEN | {"epochs": 2, "fit_heads": True}
    recipe = tiny.recipe(photos, tiny.ALIGN, stage)
    with_heads = train(recipe, tmp_path / "run")
    assert order == ["plan", "heads", "plan", "plan"]
    assert [event["stage"] for event in tiny.events(tmp_path / "run", "heads")] == ["sharpen"]
    without = train(tiny.recipe(photos, tiny.ALIGN, stage | {"fit_heads": False}), tmp_path / "without")
    more = {tower: with_heads["forwards"][tower] - without["forwards"][tower] for tower in ("image", "text")}
    assert more == {"image": 24 + 24, "text": 72 + 72}  # and the round is embedded with the new heads


def test_what_came_alone_is_matched_for_better_heads(photos):
    """Half of the pairs, taken apart."""
    recipe, model, whole = prepared(photos, FIRST)
    items = list(read_splits(recipe.data)[0])
    for number, item in enumerate(items[:12]):
        items += [Item(f"image {number}", item.images), Item(f"text {number}", (), item.captions)]
    data = dataset_of(items[12:], model, recipe)
    start, rsum = model.state_dict(), {}
    start = {name: tensor.clone() for name, tensor in start.items()}
    for match in (False, True):
        model.load_state_dict(start)
        spent, matched = fit_heads(model, data, np.random.default_rng(0), new=True, match=match)
        assert (matched > 3) == match
        assert spent == ({"image": 24, "text": 72} if match else {"image": 12, "text": 36})
        rsum[match] = validate(model, whole).metrics["rsum"]
    assert rsum[True] > rsum[False]


def test_where_all_pairs_are_alike_new_heads_begin_as_they_were_drawn(photos):
    recipe, model, _ = prepared(photos, FIRST)
    item = read_splits(recipe.data)[0][0]
    data = dataset_of([item], model, recipe)
    fit_heads(model, data, np.random.default_rng(0), new=True)
    assert model.image.cross.weight.any()
    assert model.text.cross.weight.isfinite().all()


def test_of_many_that_came_alone_a_sample_of_each_kind_is_matched(photos, monkeypatch):
    monkeypatch.setattr(head_fitting, "MOST_ALONE", 3)
    _, model, data = prepared(photos, FIRST, alone=5)
    spent, matched = fit_heads(model, data, np.random.default_rng(0), new=True, match=True)
    assert (spent["image"] - 24, spent["text"] - 72) == (3, 3)
    assert 0 < matched <= 3


def test_a_run_of_no_epochs_has_fitted_heads_and_can_be_used(photos, tmp_path):
    stage = FIRST | {"epochs": 0}
    recipe = tiny.recipe(photos, stage, train={"correct_hubness": True})
    done = train(recipe, tmp_path / "run")
    assert (done["epochs"], done["forwards"]["image"]) == (0, 24 + 24)  # heads, and a sample for hubness
    assert [len(tiny.events(tmp_path / "run", kind)) for kind in ("heads", "eval", "epoch")] == [1, 1, 0]
    _, model, data = prepared(photos, FIRST)
    fit_heads(model, data, stream(recipe.seed, "heads", 0), new=True)
    kept = TwoTower.load(tmp_path / "run" / "last")
    assert torch.equal(kept.image.cross.weight, model.image.cross.weight)
    assert train(recipe, tmp_path / "run", resume=True)["metrics"] == done["metrics"]


def test_heads_that_have_been_trained_begin_where_they_are(photos, tmp_path, monkeypatch):
    asked = []

    def watched(*args, **kwargs):
        asked.append((kwargs["new"], kwargs["match"]))
        return fit_heads(*args, **kwargs)

    monkeypatch.setattr(loop, "fit_heads", watched)
    matching = FIRST | {"match_unpaired": True}
    again = tiny.SHARPEN | {"fit_heads": True}
    train(tiny.recipe(photos, matching, again), tmp_path / "run")
    train(tiny.recipe(photos, matching | {"epochs": 0}, again), tmp_path / "heads")
    train(tiny.recipe(photos, FIRST, train={"start_from": str(tmp_path / "run")}), tmp_path / "further")
    assert asked == [(True, True), (False, False)] * 2 + [(False, False)]


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (tiny.UNI | {"fit_heads": True}, "fit_heads serves the image-text loss"),
        (FIRST | {"freeze": ["image_head", "text_head"]}, "fit_heads moves the heads"),
        (tiny.ALIGN | {"match_unpaired": True}, "match_unpaired serves the fitting of heads"),
    ],
)
def test_fit_heads_needs_heads_that_move(stage, sentence):
    with pytest.raises(RecipeError, match=sentence):
        tiny.recipe("photos", stage)
