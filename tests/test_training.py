"""One run at a time: what it does and what it leaves behind."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from training_parts import ALL, CPU, PLAIN, batch_of, dataset_of, prepared
from unicross.data.image_source import ImageFile
from unicross.data.items import Item
from unicross.data.load import read_splits
from unicross.errors import CheckpointError
from unicross.evaluation import evaluate
from unicross.model import TwoTower
from unicross.training import loop, state, step_log, train
from unicross.training.batch import make_batch
from unicross.training.cost import step_forwards, tower_cost
from unicross.training.plan import epoch_plan
from unicross.training.rounds import Round
from unicross.training.step import backward


def start_weights(recipe):
    items, _, _ = read_splits(recipe.data)
    return state.make_model(recipe, items, CPU).state_dict()


def test_a_run_can_begin_with_the_weights_of_another(photos, tmp_path):
    train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "first")
    first = load_file(tmp_path / "first" / "best" / "model.safetensors")
    begin = {"train": {"start_from": str(tmp_path / "first")}}
    other = tiny.recipe(photos, tiny.ALIGN, **begin, model={"image_size": 48}, data={"max_tokens": 8})
    model = state.make_model(other, read_splits(other.data)[0], CPU)
    assert all(torch.equal(tensor, first[name]) for name, tensor in model.state_dict().items())
    assert (model.config.image_size, model.max_tokens) == (48, 8)
    train(other, tmp_path / "second")
    assert "summary.json" in {path.name for path in (tmp_path / "second").iterdir()}

    wider = tiny.recipe(photos, tiny.ALIGN, **begin, model={"dim": 24})
    with pytest.raises(CheckpointError, match=r"first/best: .*model.dim is 16 there, 24 here"):
        train(wider, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_frozen_parts_keep_their_weights_to_the_bit(photos, tmp_path):
    stage = tiny.ALIGN | {"epochs": 2, "freeze": ["image", "text_head"], "losses": {"image_text": 1.0}}
    recipe = tiny.recipe(photos, stage)
    train(recipe, tmp_path / "run")
    before, after = start_weights(recipe), load_file(tmp_path / "run" / "last" / "model.safetensors")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert not any(name.startswith(("image.backbone", "text.cross", "text.uni")) for name in moved)
    assert {"image.cross.weight", "log_scale"} <= moved
    assert any(name.startswith("text.backbone") for name in moved)
    assert "image.uni.0.weight" not in moved  # no loss asks for it


def test_training_learns_and_tells_what_it_does(photos, tmp_path):
    heard = []
    stage = tiny.ALIGN | {"epochs": 12, "optim": {"head_lr": 5e-3, "image_lr": 3e-3, "text_lr": 3e-3}}
    recipe = tiny.recipe(photos, stage)
    summary = train(recipe, tmp_path / "run", listener=heard.append)
    run = tmp_path / "run"
    losses = [event["loss"] for event in tiny.events(run, "step")]
    assert len(losses) == 36
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
    assert [event["step"] for event in tiny.events(run, "eval")] == list(range(3, 37, 3))
    assert {event["kind"] for event in heard} == {"decoding", "start", "step", "epoch", "eval"}
    best = max(tiny.events(run, "eval"), key=lambda event: event["rsum"])
    assert summary["metrics"]["rsum"] == best["rsum"]
    assert json.loads((run / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["forwards"] == {"image": 12 * 24 * 3, "text": 12 * 24 * 3}
    assert (run / "best").resolve().name == f"best-{best['step']:08d}"
    assert len(list((run / "checkpoints").iterdir())) == 3  # last, previous and best; older ones are gone


def test_a_stage_of_each_kind_logs_its_own_losses(photos, tmp_path):
    run = tmp_path / "run"
    train(tiny.recipe(photos), run)
    names = {e["stage"]: {k for k in e if k.startswith("loss/")} for e in tiny.events(run, "step")}
    assert names == {
        "uni": {"loss/image_image", "loss/text_text"},
        "align": {"loss/image_text"},
        "sharpen": {"loss/image_text", "loss/image_image", "loss/text_text"},
    }
    (event,) = tiny.events(run, "round")
    assert event["clusters"] == 6
    assert {"hardness", "hardness_random", "masked", "size_min", "size_max", "seconds"} <= event.keys()
    for event in tiny.events(run, "step"):
        if event["stage"] == "sharpen":
            weighed = (1.0, "image_text"), (0.3, "image_image"), (0.1, "text_text")
            assert event["loss"] == pytest.approx(sum(w * event[f"loss/{name}"] for w, name in weighed))


def test_a_run_in_micro_batches_is_the_run_in_whole_ones(photos, tmp_path):
    losses = {}
    for micro in (None, 3):
        sections = {"model": {"dropout": 0}, "train": {"micro_batch": micro}}
        train(tiny.recipe(photos, tiny.ALIGN, ALL, **sections), tmp_path / str(micro))
        losses[micro] = [event["loss"] for event in tiny.events(tmp_path / str(micro), "step")]
    assert losses[3] == pytest.approx(losses[None], rel=1e-3)
    assert losses[3] != losses[None]


def test_captions_take_turns_across_stages(photos, tmp_path, monkeypatch):
    turns = []

    def recording(data, items, stage, round_, turn, *rest):
        turns.append(turn)
        return make_batch(data, items, stage, round_, turn, *rest)

    monkeypatch.setattr(loop, "make_batch", recording)
    train(tiny.recipe(photos, tiny.UNI, tiny.ALIGN), tmp_path / "run")
    assert turns == [0, 0, 0, 1, 1, 1]


def test_equal_seeds_give_equal_losses_and_others_do_not(photos, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny.recipe(photos, tiny.ALIGN, ALL, seed=seed), tmp_path / name)
    a, b, c = ([e["loss"] for e in tiny.events(tmp_path / name, "step")] for name in "abc")
    assert a == b
    assert a != c


def test_validation_may_be_rarer_than_epochs_but_the_end_is_always_looked_at(photos, tmp_path):
    heard = []
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 5}, train={"validate_every": 2})
    train(recipe, tmp_path / "run", listener=heard.append)
    assert [event["epoch"] for event in heard if event["kind"] == "eval"] == [2, 4, 5]
    assert (tmp_path / "run/best").exists()


def test_several_processes_agree_on_a_checkpoint_only_where_losses_are_looked_at(
    photos, tmp_path, monkeypatch
):
    """Each question is a broadcast; one process asks after every step."""
    asked = []
    steps = []

    def broadcast(make):
        if steps:
            asked.append(steps[-1])
        return make()

    monkeypatch.setattr(loop, "broadcast_object", broadcast)
    backward = loop.backward
    monkeypatch.setattr(loop, "backward", lambda *args: steps.append(len(steps) + 1) or backward(*args))
    monkeypatch.setattr(step_log, "LOG_EVERY", 2)
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 2}, train={"batch_size": 4})
    train(recipe, tmp_path / "one")
    assert asked == list(range(1, 13))
    asked.clear()
    steps.clear()
    monkeypatch.setattr(loop, "size", lambda: 2)
    train(recipe, tmp_path / "two")
    assert asked == [2, 4, 6, 8, 10, 12]


def test_the_best_weights_score_what_the_run_says_of_them(photos, tmp_path):
    """The learning rate ruins the model after its first epochs, so that the best is not the last."""
    stages = (
        tiny.ALIGN | {"epochs": 3},
        tiny.ALIGN | {"name": "ruin", "optim": {"head_lr": 10.0, "restart_schedule": True}},
    )
    recipe = tiny.recipe(photos, *stages)
    summary = train(recipe, tmp_path / "run")
    found = evaluate(TwoTower.load(tmp_path / "run"), read_splits(recipe.data)[1]).metrics
    assert found["rsum"] == pytest.approx(summary["metrics"]["rsum"])
    last = tiny.events(tmp_path / "run", "eval")[-1]
    assert last["rsum"] < summary["metrics"]["rsum"]


def test_bf16_trains_with_every_kind_of_view(photos, tmp_path):
    views = {"image": {"blur": 0.5, "jitter": 0.5, "grey": 0.5}, "captions": 2}
    train(tiny.recipe(photos, ALL, train={"precision": "bf16"}, views=views), tmp_path / "run")
    assert all(math.isfinite(event["loss"]) for event in tiny.events(tmp_path / "run", "step"))


def test_images_only_train_with_few_texts_only(tmp_path):
    """Batches without a text skip the text loss; nothing is paired."""
    root = tiny.write_set(tmp_path / "set")
    (root / "captions.csv").unlink()
    (root / "texts.txt").write_text("a red square\nsomething blue\nnothing at all\n")
    recipe = tiny.recipe(root, tiny.UNI, data={"split": {"train": None, "val": None}})
    model = tiny.model()
    items = [Item(p.name, (ImageFile(p),)) for p in sorted((root / "images").iterdir())]
    items += [Item(str(n), (), (text,)) for n, text in enumerate(("a red square", "blue", "nothing"))]
    data = dataset_of(items, model, recipe)
    round_ = Round()
    batches = epoch_plan(data, recipe.stages[0], 0, 4, round_, np.random.default_rng(0))
    found = [
        backward(model, batch_of(data, batch, recipe.stages[0], seed=n), recipe.stages[0], PLAIN).losses
        for n, batch in enumerate(batches)
    ]
    assert sum("text_text" in parts for parts in found) == 3
    assert all(math.isfinite(parts["image_image"]) for parts in found)


def test_a_run_over_such_batches_logs_what_there_is(tmp_path):
    root = tmp_path / "folder"
    tiny.write_set(root)
    (root / "captions.csv").unlink()
    for number in range(3):
        (root / "images" / f"{number:03d}.txt").write_text(f"the square number {number}\nanother {number}\n")
    data = {"root": str(root / "images"), "split": {"train": None, "val": None}}
    train(tiny.recipe("", tiny.UNI, data=data, train={"batch_size": 4}), tmp_path / "run")
    steps = tiny.events(tmp_path / "run", "step")
    assert len(steps) == 8
    assert sum("loss/text_text" in event for event in steps) == 3


def test_forwards_of_a_step_count_views_and_backwards():
    recipe, model = tiny.recipe("photos", ALL, tiny.ALIGN | {"freeze": ["text"]}), tiny.model()
    assert step_forwards(recipe.stages[0], 10, 20, model) == {"image": 10 * 2 * 3, "text": 20 * 2 * 3}
    assert step_forwards(recipe.stages[1], 10, 20, model) == {"image": 10 * 3, "text": 20}


def test_a_small_view_counts_as_its_share_of_the_area():
    recipe = tiny.recipe("photos", ALL, views={"image_uni": {"size": 0.5}})
    assert step_forwards(recipe.stages[0], 10, 20, tiny.model())["image"] == 10 * (1 + 0.25) * 3


def test_a_view_with_dropped_patches_counts_those_that_are_left():
    views = {"image": {"size": 0.5, "patch_dropout": 0.5}, "image_uni": {"patch_dropout": 0.75}}
    recipe = tiny.recipe("photos", ALL, views=views)
    assert step_forwards(recipe.stages[0], 10, 20, tiny.model())["image"] == 10 * (0.125 + 0.25) * 3


def test_captions_are_tokenised_once(photos, monkeypatch):
    _, model, data = prepared(photos, tiny.ALIGN)
    monkeypatch.setattr(type(model.tokenizer), "__call__", None)
    batch_of(data, np.arange(4), tiny.recipe(photos, tiny.UNI).stages[0])


def test_layers_that_share_weights_cost_as_often_as_they_are_passed():
    plain = tower_cost(tiny.model(), 10.0)
    shared = tower_cost(tiny.model(text=tiny.BERT | {"model_type": "albert", "embedding_size": 32}), 10.0)
    assert shared.text == pytest.approx(plain.text, rel=0.1)
    assert shared.image == plain.image


def test_a_new_best_forgets_the_evaluation_of_the_old_one(photos, tmp_path):
    run = tmp_path / "run"
    heard = []

    def listener(event):
        heard.append(event["kind"])
        if event["kind"] == "eval":  # as `unicross evaluate` leaves it, of the best so far
            (run / "evaluation.json").write_text("{}")

    train(tiny.recipe(photos, tiny.ALIGN), run, listener=listener)
    assert "eval" in heard
    assert (run / "best").exists()
    assert not (run / "evaluation.json").exists()
