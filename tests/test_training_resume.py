"""A run that was killed and resumed equals the unbroken one, bit for bit."""

import os
import random

import pytest
import torch
from safetensors.torch import load_file

import tiny
from training_parts import Killed, run_python
from unicross.errors import CheckpointError, RecipeError
from unicross.training import train
from unicross.training.state import State

STAGES = (
    tiny.UNI,
    tiny.ALIGN | {"fit_heads": True},
    tiny.SHARPEN
    | {
        "epochs": 3,
        "batches": tiny.SHARPEN["batches"] | {"recluster_every": 2, "random_fraction": [0.4, 0.0]},
    },
)
SAVE_ALWAYS = {"save_minutes": 1e-9}


def recipe(photos, **train):
    return tiny.recipe(photos, *STAGES, train=train, views={"captions": 2})


@pytest.fixture(scope="module")
def unbroken(photos, tmp_path_factory):
    """The folder of an unbroken run."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    train(recipe(photos), folder)
    assert max(event["masked"] for event in tiny.events(folder, "round")) > 0
    return folder


def killed_at(photos, run, kind, number, **changes):
    """Train until the number-th event of a kind, then die, as far as one process can."""
    heard = []

    def listener(event):
        heard.append(event["kind"])
        if event["kind"] == kind and heard.count(kind) == number:
            raise Killed

    with pytest.raises(Killed):
        train(recipe(photos, **changes), run, listener=listener)


def told(run):
    """All that a run says of itself but for its speed."""
    clock = ("pairs_per_second", "seconds")
    events = [e for kind in ("step", "epoch", "heads", "round", "eval") for e in tiny.events(run, kind)]
    return [{key: value for key, value in event.items() if key not in clock} for event in events]


def assert_equal_runs(run, other):
    assert told(run) == told(other)
    for name in ("last/model", "last/optimizer", "last/training", "best/model"):
        mine, wanted = (load_file(folder / f"{name}.safetensors") for folder in (run, other))
        assert mine.keys() == wanted.keys()
        assert [key for key in mine if not torch.equal(mine[key], wanted[key])] == [], name


@pytest.mark.parametrize(
    ("kind", "number", "minutes"),
    [
        ("step", 2, 1e-9),  # in the first epoch, a checkpoint after every step
        ("epoch", 1, 5),  # at a stage's end, before its validation and checkpoint
        ("heads", 1, 5),  # heads fitted, no step taken with them
        ("eval", 2, 5),  # validated, not yet kept
        ("round", 1, 5),  # at the beginning of the clustered stage
        ("step", 8, 1e-9),  # in the middle of a clustered epoch
        ("step", 11, 1e-9),  # in the second epoch of a round
        ("round", 3, 1e-9),  # a second round was made
        ("step", 15, 1e-9),  # in the last epoch
    ],
)
def test_a_killed_run_goes_on_as_if_nothing_was(photos, tmp_path, unbroken, kind, number, minutes):
    run = tmp_path / "run"
    killed_at(photos, run, kind, number, save_minutes=minutes)
    train(recipe(photos, save_minutes=minutes), run, resume=True)
    assert_equal_runs(run, unbroken)


def test_a_run_killed_between_its_two_checkpoints_goes_on(photos, tmp_path, unbroken, monkeypatch):
    """The best is written, the last is not: the run comes to the same best again."""
    run, publish = tmp_path / "run", State.publish_last

    def killed(state, folder):
        if state.progress.step == unbroken_best:
            raise Killed
        publish(state, folder)

    unbroken_best = int((unbroken / "best").resolve().name.removeprefix("best-"))
    monkeypatch.setattr(State, "publish_last", killed)
    with pytest.raises(Killed):
        train(recipe(photos), run)
    monkeypatch.undo()
    train(recipe(photos), run, resume=True)
    assert_equal_runs(run, unbroken)


def test_a_checkpoint_in_an_epoch_has_all_its_steps_told(photos, tmp_path, unbroken, monkeypatch):
    run, publish = tmp_path / "run", State.publish_last

    def killed(state, folder):
        publish(state, folder)
        if state.progress.step == 8:
            raise Killed

    monkeypatch.setattr(State, "publish_last", killed)
    with pytest.raises(Killed):
        train(recipe(photos, **SAVE_ALWAYS), run)
    monkeypatch.undo()
    train(recipe(photos, **SAVE_ALWAYS), run, resume=True)
    assert_equal_runs(run, unbroken)


def test_a_run_may_be_killed_again_and_again(photos, tmp_path, unbroken):
    run = tmp_path / "run"
    killed_at(photos, run, "step", 4, **SAVE_ALWAYS)
    for _ in range(2):
        heard = []

        def listener(event, heard=heard):
            heard.append(event["kind"])
            if heard.count("step") == 4:
                raise Killed

        with pytest.raises(Killed):
            train(recipe(photos, **SAVE_ALWAYS), run, resume=True, listener=listener)
    train(recipe(photos, **SAVE_ALWAYS), run, resume=True)
    assert_equal_runs(run, unbroken)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(photos, tmp_path, unbroken):
    run = tmp_path / "run"
    killed_at(photos, run, "start", 1)
    assert not (run / "last").exists()
    train(recipe(photos), run, resume=True)
    assert_equal_runs(run, unbroken)


def test_resuming_a_finished_run_changes_nothing(photos, tmp_path):
    for val in ("val", None):
        run = tmp_path / str(val)
        whole = tiny.recipe(photos, tiny.ALIGN, data={"split": {"val": val}})
        first = train(whole, run)
        before = load_file(run / "best" / "model.safetensors")
        assert train(whole, run, resume=True) == first
        after = load_file(run / "best" / "model.safetensors")
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_recipes_are_refused_with_what_differs(photos, tmp_path):
    run = tmp_path / "run"
    killed_at(photos, run, "step", 1)
    changed = tiny.recipe(
        photos,
        *STAGES[:2],
        STAGES[2] | {"epochs": 4},
        train={"batch_size": 6},
        views={"captions": 2},
    )
    with pytest.raises(RecipeError) as caught:
        train(changed, run, resume=True)
    message = str(caught.value)
    assert "train.batch_size was 8, is 6" in message
    assert "stages.2.epochs was 3, is 4" in message
    assert "seed" not in message
    assert "Resume without overrides but data.root, or begin a new run" in message


def test_there_must_be_something_to_resume(photos, tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing to resume: there is no recipe\.yaml in it"):
        train(recipe(photos), tmp_path, resume=True)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "progress.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_a_sentence(photos, tmp_path, name, damage):
    run = tmp_path / "run"
    killed_at(photos, run, "step", 2, **SAVE_ALWAYS)
    path = run / "last" / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="not as it was written, and there is no sound checkpoint"):
        train(recipe(photos, **SAVE_ALWAYS), run, resume=True)


def test_other_data_is_a_sentence(tmp_path):
    root = tiny.write_set(tmp_path / "set")
    run = tmp_path / "run"
    killed_at(root, run, "step", 2, **SAVE_ALWAYS)
    table, image = root / "captions.csv", root / "images" / "003.png"
    text, picture = table.read_text(), image.read_bytes()

    def refused(match):
        with pytest.raises(CheckpointError, match=f"the data are not those .*{match}.* begin a new run"):
            train(recipe(root, **SAVE_ALWAYS), run, resume=True)
        table.write_text(text)
        image.write_bytes(picture)

    lines = text.splitlines(keepends=True)
    table.write_text("".join(line for line in lines if not line.startswith("003.png")))
    refused("train had 24 items and has 23; train has other ids; train has other captions")
    table.write_text(text.replace("red", "rde", 1))
    refused("with: train has other captions")
    table.write_text("".join(lines[:1] + lines[4:7] + lines[1:4] + lines[7:]))
    refused("with: train has other ids; train has other captions")
    image.write_bytes(picture + b"more")
    refused("with: train has other pictures")
    os.utime(image, ns=(1, 1))  # a copy of the data is the same data
    train(recipe(root, **SAVE_ALWAYS), run, resume=True)


KILLS = """
import os, pathlib, signal, sys
import torch
import tiny, test_training_resume
from unicross.training import train

photos, folder = pathlib.Path({photos!r}), pathlib.Path({folder!r})
torch.set_num_threads({threads})  # sums depend on it
recipe = test_training_resume.recipe(photos, **test_training_resume.SAVE_ALWAYS)

def die_after(moments):
    '''Kill this process at the moments-th time that it touches the disk or says something.'''
    seen = []
    def moment(*_):
        seen.append(1)
        if len(seen) == moments:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(lambda name, args: moment() if name in ("os.rename", "os.symlink", "os.mkdir") else None)
    fsync = os.fsync
    os.fsync = lambda descriptor: (moment(), fsync(descriptor))
    return moment

for number, moments in enumerate({moments}):
    run, resume, killed = folder / str(number), False, 0
    while True:
        child = os.fork()
        if child == 0:
            listener = die_after(moments) if killed < 2 else None
            train(recipe, run, resume=resume, listener=listener)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            assert status == 0, status
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed, resume = killed + 1, (run / "recipe.yaml").exists()
    assert killed, moments
"""


@pytest.mark.slow
def test_kill_9_at_any_moment(photos, tmp_path, unbroken):
    """Five processes that are really killed, twice each, while they write checkpoints too."""
    moments = random.Random(0).sample(range(3, 150), 5)
    script = KILLS.format(
        photos=str(photos),
        folder=str(tmp_path),
        moments=moments,
        threads=torch.get_num_threads(),
    )
    done = run_python("-c", script, threads=torch.get_num_threads())
    assert done.returncode == 0, done.stderr[-3000:]
    for number in range(len(moments)):
        assert_equal_runs(tmp_path / str(number), unbroken)
