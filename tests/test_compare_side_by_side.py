"""Several runs of a comparison at once, each in a process of its own: real training of tiny towers."""

import os
import signal

import pytest
import yaml

from unicross.compare import compare, real_steps
from unicross.compare.runs import run_folder
from unicross.demo.scenes import write_demo_set
from unicross.errors import TrainingError, TrainingStopped
from unicross.recipe import load_recipe
from unicross.run import RunFolder

pytestmark = pytest.mark.xdist_group("side by side")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A function that writes a recipe on drawn scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_demo_set(folder / "data", 24, 12, 0)

    def write(name, **changes):
        tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        made = {
            "model": {
                "image": {"model_type": "vit", "patch_size": 16, **tower},
                "text": {"model_type": "bert", "vocab_size": 64, **tower},
                "image_size": 32,
                "dim": 8,
            },
            "data": {"root": str(folder / "data"), "split": {"train": "train", "val": "val"}},
            "train": {"batch_size": 8, "precision": "fp32", "threads": 1},
            "stages": [{"name": "align", "epochs": 2, "losses": {"image_text": 1.0}}],
        }
        made |= changes
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(made))
        return folder / f"{name}.yaml"

    return write


def test_runs_side_by_side_are_those_of_one_after_the_other(recipe, tmp_path):
    said = []
    both = [recipe("one"), recipe("other", optim={"head_lr": 3e-3})]
    compare(both, [0], tmp_path / "together", steps=real_steps(device="cpu"), progress=said.append, at_once=2)
    compare(both, [0], tmp_path / "in turn", steps=real_steps(device="cpu"))
    for path in both:
        together, in_turn = (
            RunFolder(run_folder(load_recipe(path), path.stem, tmp_path / out))
            for out in ("together", "in turn")
        )
        losses = [[event["loss"] for event in run.events("step")] for run in (together, in_turn)]
        assert len(losses[0]) == 6
        assert losses[0] == losses[1]
        assert any(line.startswith(f"{path.stem}, seed 0: epoch 1/2") for line in said)


def test_a_run_that_fails_is_named_and_the_others_can_go_on(recipe, tmp_path):
    broken = recipe("broken", model={"image": str(tmp_path / "nowhere"), "text": str(tmp_path / "nowhere")})
    long = recipe("long", stages=[{"name": "align", "epochs": 100_000, "losses": {"image_text": 1.0}}])
    with pytest.raises(TrainingError, match=r"broken, seed 0, in .*nowhere") as caught:
        compare([long, broken], [0], tmp_path / "out", steps=real_steps(device="cpu"), at_once=2)
    assert not isinstance(caught.value, TrainingStopped)


def test_a_signal_stops_all_of_them_saved(recipe, tmp_path):
    long = recipe("long", stages=[{"name": "align", "epochs": 100_000, "losses": {"image_text": 1.0}}])
    began = set()

    def say(line):
        if ": epoch 1/" in line and line not in began:
            began.add(line.split(":")[0])
            if len(began) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStopped, match="SIGTERM"):
        compare([long], [0, 1], tmp_path / "out", steps=real_steps(device="cpu"), progress=say, at_once=2)
    for seed in (0, 1):
        loaded = load_recipe(long).model_copy(update={"seed": seed})
        run = RunFolder(run_folder(loaded, "long", tmp_path / "out"))
        assert run.has_begun
        assert not run.is_done
        assert run.last.exists()
