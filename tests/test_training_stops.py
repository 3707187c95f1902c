"""What stops a run: each says so in a sentence, and leaves the last good state behind."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from unicross.data.items import Item, Items
from unicross.data.load import read_splits
from unicross.errors import CheckpointError, DataError, RecipeError, TrainingError
from unicross.model import TwoTower
from unicross.run import RunFolder
from unicross.training import checkpoint, entry, loop, train
from unicross.training.step import backward


def poisoned_at(call, monkeypatch):
    """The n-th gradient is not a number."""
    calls = []

    def poisoned(model, *args):
        calls.append(1)
        result = backward(model, *args)
        if len(calls) == call:
            model.image.cross.weight.grad[0, 0] = torch.nan
        return result

    monkeypatch.setattr(loop, "backward", poisoned)


@pytest.mark.parametrize(("save_minutes", "last"), [(5, 3), (1e-9, 4)])
def test_what_is_not_finite_stops_the_run_before_it_is_kept(
    photos, tmp_path, monkeypatch, save_minutes, last
):
    poisoned_at(5, monkeypatch)  # the second step of the second epoch
    run = tmp_path / "run"
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 3}, train={"save_minutes": save_minutes})
    with pytest.raises(TrainingError) as caught:
        train(recipe, run)
    assert "step 5 of stage 'align': not finite: grad_norm" in str(caught.value)
    assert "Lower optim.image_lr" in str(caught.value)
    assert [event["step"] for event in tiny.events(run, "step")] == [1, 2, 3, 4]
    assert (run / "last").resolve().name == f"step-{last:08d}"
    weights = load_file(run / "last" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_monstrous_learning_rate_is_told_in_a_sentence(photos, tmp_path):
    stage = tiny.ALIGN | {"epochs": 4, "optim": {"image_lr": 1e38, "head_lr": 1e38, "text_lr": 1e38}}
    with pytest.raises(TrainingError, match="not finite"):
        train(tiny.recipe(photos, stage), tmp_path / "run")


def test_patches_cannot_be_dropped_where_positions_are_rotary(photos, tmp_path):
    views = {"image": {"patch_dropout": 0.5}}
    rotary = {"image": tiny.VIT | {"model_type": "dinov3_vit"}, "image_pool": "cls"}
    with pytest.raises(RecipeError, match="cannot do without some of its patches: leave patch_dropout out"):
        train(tiny.recipe(photos, tiny.ALIGN, views=views, model=rotary), tmp_path / "run")


@pytest.mark.parametrize(
    ("views", "batches"),
    [
        ({}, {}),
        ({"captions": 3}, {}),
        ({}, {"negatives_from": 50}),
        ({}, {"kind": "clustered", "negatives_from": None}),
        ({"captions": 3}, {"negatives_from": 50, "kind": "clustered", "cluster_size": 2}),
    ],
)
@pytest.mark.parametrize("size", [4, 8])  # few steps an epoch, as small data have, are looked at too
def test_a_loss_that_stays_at_chance_is_noted(photos, tmp_path, views, batches, size):
    still = {"image_lr": 0, "text_lr": 0, "head_lr": 0}
    losses = {"image_text": 1.0}
    stage = {
        "name": "stuck",
        "epochs": 1,
        "losses": losses,
        "optim": still,
        "views": views,
        "batches": batches,
    }
    recipe = tiny.recipe(photos, stage, model={"temperature": 100.0}, train={"batch_size": size})
    train(recipe, tmp_path / "run")
    (note,) = tiny.notes(tmp_path / "run")
    assert "chance" in note
    assert "Check that captions belong to their images" in note


def test_a_schedule_that_warms_up_may_be_at_chance(photos, tmp_path):
    stage = tiny.ALIGN | {"epochs": 2, "optim": {"image_lr": 0, "text_lr": 0, "head_lr": 0, "warmup": 0.6}}
    recipe = tiny.recipe(photos, stage, model={"temperature": 100.0}, train={"batch_size": 2})
    heard = []
    train(recipe, tmp_path / "run", listener=heard.append)
    told = [number for number, event in enumerate(heard) if "chance" in event.get("text", "")]
    assert len(told) == 1
    assert told[0] > next(number for number, event in enumerate(heard) if event["kind"] == "epoch")


def test_a_full_disk_leaves_the_last_good_checkpoint_and_says_so(photos, tmp_path, monkeypatch):
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 3})
    run, calls = tmp_path / "run", []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 4:  # of the second epoch: optimizer and training are two calls a checkpoint
            raise OSError(28, "No space left on device")
        return save_file(tensors, path)

    save_file = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError) as caught:
        train(recipe, run)
    assert "No space left on device" in str(caught.value)
    assert "the one before is untouched. Make room and go on with --resume" in str(caught.value)
    assert (run / "last").resolve().name == "step-00000003"
    assert not list((run / "checkpoints").glob("*.partial"))
    monkeypatch.undo()
    train(recipe, run, resume=True)
    train(recipe, tmp_path / "unbroken")
    assert [e["loss"] for e in tiny.events(run, "step")] == [
        e["loss"] for e in tiny.events(tmp_path / "unbroken", "step")
    ]


def test_a_full_disk_while_logging_is_a_sentence(photos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.EventLog, "sync", full)
    with pytest.raises(
        TrainingError, match=r"run: .*No space left on device; mend that and go on with --resume"
    ):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")


def test_a_picture_that_goes_away_while_training_is_a_sentence(tmp_path):
    root = tiny.write_set(tmp_path / "set")
    recipe = tiny.recipe(root, tiny.ALIGN | {"epochs": 2}, data={"cache": "none"})

    def listener(event):
        if event["kind"] == "eval":
            for path in (root / "images").iterdir():
                path.unlink()

    with pytest.raises(DataError, match=r"\d\d\d\.png: cannot be read: No such file"):
        train(recipe, tmp_path / "run", listener=listener)
    assert TwoTower.load(tmp_path / "run").dim == 16  # what the first epoch left


def test_running_out_of_memory_says_what_to_set(photos, tmp_path, monkeypatch):
    def hungry(*_):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(loop, "backward", hungry)
    with pytest.raises(TrainingError, match=r"out of memory: set train\.micro_batch"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")


def test_what_fails_before_it_begins_leaves_the_folder_free(photos, tmp_path):
    for broken in (
        tiny.recipe(tmp_path / "typo", tiny.ALIGN),
        tiny.recipe(photos, tiny.UNI, model={"dropout": 0.0}, views={"text": "dropout"}),
    ):
        with pytest.raises((DataError, RecipeError)):
            train(broken, tmp_path / "run")
    train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_recipe_that_was_edited_meanwhile_is_refused(photos, tmp_path):
    train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")
    kept = tmp_path / "run" / "recipe.yaml"
    kept.write_text(kept.read_text().replace("epochs: 1", "epochs: 3"))
    with pytest.raises(RecipeError, match=r"stages\.0\.epochs was 1, is 3"):
        train(RunFolder(tmp_path / "run").recipe(), tmp_path / "run", resume=True)


def test_captions_that_are_cut_are_told(photos, tmp_path):
    train(tiny.recipe(photos, tiny.ALIGN, data={"max_tokens": 5}), tmp_path / "cut")
    (note,) = tiny.notes(tmp_path / "cut")
    assert "100% of the captions have 5 tokens or more" in note
    train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "whole")
    assert tiny.notes(tmp_path / "whole") == []


def test_a_folder_that_holds_something_is_refused(photos, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty: choose another folder with --out"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path)
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_data_that_cannot_feed_a_loss_is_refused_before_training(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    data = {"root": str(tmp_path), "split": {"train": None, "val": None}}
    with pytest.raises(DataError, match=r"stage .align. wants the losses image_text, but .* fewer than two"):
        train(tiny.recipe("", tiny.ALIGN, data=data), tmp_path / "run")


def test_validation_without_a_pair_is_refused_before_training(photos, tmp_path, monkeypatch):
    def images_only(data):
        items, val, problems = read_splits(data)
        return items, Items.of([Item(item.id, item.images) for item in val]), problems

    monkeypatch.setattr(entry, "read_splits", images_only)
    with pytest.raises(DataError, match=r"none of the 8 validation items .*data\.split\.val=null"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")


def test_dropout_views_need_dropout(photos, tmp_path):
    recipe = tiny.recipe(photos, tiny.UNI, views={"text": "dropout"}, model={"dropout": 0})
    with pytest.raises(RecipeError, match=r"views\.text=dropout needs .*: set model\.dropout=0\.1"):
        train(recipe, tmp_path / "run")
