"""Being asked to stop: the step is finished and saved; nobody else trains there; damage is noticed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from unicross.errors import CheckpointError, TrainingStopped
from unicross.recipe import dump_recipe
from unicross.run import RunFolder
from unicross.training import train
from unicross.training.signals import stop_requests

SRC = Path(__file__).parent.parent / "src"
STAGE = tiny.ALIGN | {"epochs": 3}


def weights(run):
    return load_file(run / "last" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(photos, tmp_path, number):
    recipe = tiny.recipe(photos, STAGE)
    train(recipe, tmp_path / "whole")

    def listener(event):
        if event["kind"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(TrainingStopped, match=rf"{signal.Signals(number).name}.*--resume") as stopped:
        train(recipe, tmp_path / "run", listener=listener)
    assert stopped.value.signal == number
    train(recipe, tmp_path / "run", resume=True)
    whole, run = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(tensor, run[name]) for name, tensor in whole.items())
    assert len(tiny.events(tmp_path / "run", "step")) == len(tiny.events(tmp_path / "whole", "step"))


def test_signals_mean_what_they_did_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_at_once():
    code = (
        "import os, signal, time\n"
        "from unicross.training.signals import stop_requests\n"
        "with stop_requests():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGTERM


def test_the_command_ends_with_the_shells_exit_code(photos, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(tiny.recipe(photos, STAGE | {"epochs": 500})))
    command = [sys.executable, "-m", "unicross", "train", str(recipe), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(SRC)}, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert f"go on with: unicross train --resume {tmp_path / 'run'}" in said


def test_two_cannot_train_in_one_folder(photos, tmp_path):
    recipe, run = tiny.recipe(photos, STAGE), tmp_path / "run"

    def listener(event):
        if event["kind"] == "epoch" and event["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, listener=listener)
    with RunFolder(run).locked(), pytest.raises(CheckpointError, match="being trained by another process"):
        train(recipe, run, resume=True)
    train(recipe, run, resume=True)


@pytest.fixture
def cut_short(photos, tmp_path):
    """A run of three epochs that was killed in its third, and its recipe."""
    recipe, run = tiny.recipe(photos, STAGE), tmp_path / "run"

    def listener(event):
        if event["kind"] == "epoch" and event["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, listener=listener)
    return recipe, run


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "progress.json", "recipe.yaml"]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(tmp_path, cut_short, name):
    recipe, run = cut_short
    file = run / "last" / name
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    if name == "recipe.yaml":  # what it says is not what the run was begun with
        file.write_bytes(Path(run / "previous" / name).read_bytes() + b"\n")
    train(recipe, run, resume=True)
    assert f"{name}: not as it was written: the run goes on from the checkpoint before" in "".join(
        event["text"] for event in tiny.events(run, "note")
    )
    train(recipe, tmp_path / "whole")
    whole, resumed = weights(tmp_path / "whole"), weights(run)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_without_a_sound_checkpoint_a_run_does_not_go_on(cut_short):
    recipe, run = cut_short
    for link in ("last", "previous"):
        (run / link / "progress.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"progress\.json: not as it was written.*begin a new run"):
        train(recipe, run, resume=True)


def test_a_run_without_a_checkpoint_says_that_it_begins_anew(photos, tmp_path):
    recipe, run = tiny.recipe(photos, STAGE), tmp_path / "run"

    def listener(event):
        if event["kind"] == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, listener=listener)
    train(recipe, run, resume=True)
    assert any("begins anew" in event["text"] for event in tiny.events(run, "note"))
