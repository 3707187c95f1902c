"""Trackers show each figure once, find their run again, and never stop training."""

import json
import sys
from types import SimpleNamespace

import pytest
import yaml

import tiny
from unicross.errors import RecipeError, TrainingError
from unicross.recipe import load_recipe
from unicross.run import RunFolder
from unicross.training import trackers, train
from unicross.training.event_log import EventLog


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.raw_recipe("x", tiny.ALIGN)), encoding="utf-8")
    return load_recipe(tmp_path / "tiny.yaml")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def write(run, recipe, name, resume_at, steps, loss):
    """Tell some steps as training would, in a process that begins or goes on."""
    log = EventLog(run, resume_at, None, trackers.open_trackers([name], run.path, recipe, resume_at))
    for step in steps:
        log.emit({"kind": "step", "step": step, "loss": loss})
    log.emit({"kind": "eval", "step": steps[-1], "i2t/R@1": 10 * loss})
    log.close()


def test_tensorboard_shows_each_step_once(run, recipe, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.summary.writer import event_file_writer as writer

    monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(0))  # .10 would be read before .9
    write(run, recipe, "tensorboard", None, range(1, 6), 1.0)
    write(run, recipe, "tensorboard", 3, range(4, 7), 2.0)
    board = accumulator.EventAccumulator(str(run.path / "tensorboard"))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("step/loss")]
    assert shown == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_mlflow_has_one_run_with_the_recipe_and_the_figures(run, recipe, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "photos")
    write(run, recipe, "mlflow", None, range(1, 4), 1.0)
    write(run, recipe, "mlflow", 3, range(4, 6), 2.0)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("photos").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["train.batch_size"] == str(recipe.train.batch_size)
    assert found.data.params["stages.0.name"] == "align"
    losses = client.get_metric_history(found.info.run_id, "step/loss")
    assert [(each.step, each.value) for each in losses] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
    assert found.data.metrics["eval/i2t/R_at_1"] == 20


class Wandb:
    """As much of the package as is called, with what it was told."""

    def __init__(self):
        self.began, self.logged, self.metrics, self.finished = [], [], [], 0

    def init(self, **how):
        self.began.append(how)
        return SimpleNamespace(
            log=self.logged.append,
            finish=self.finish,
            define_metric=lambda *a, **k: self.metrics.append((a, k)),
        )

    def finish(self):
        self.finished += 1


def test_weights_and_biases_goes_on_with_the_same_run(run, recipe, monkeypatch):
    package = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", package)
    write(run, recipe, "wandb", None, [1, 2], 1.0)
    write(run, recipe, "wandb", 1, [2], 2.0)
    first, again = package.began
    assert first["id"] == again["id"]
    assert first["config"]["train"]["batch_size"] == recipe.train.batch_size
    json.dumps(first["config"])
    assert [each["step"] for each in package.logged if "step/loss" in each] == [1, 2, 2]
    assert package.finished == 2
    write(run, recipe, "wandb", None, [1], 1.0)  # the folder is another run's now
    assert package.began[-1]["id"] != first["id"]


def test_a_tracker_that_fails_is_left_out_with_a_note(run):
    class Failing:
        def log(self, figures, step):  # noqa: ARG002
            raise ConnectionError("the server\nis gone")

        def close(self):
            raise AssertionError("it was left out")

    log = EventLog(run, None, None, {"mlflow": Failing()})
    for step in (1, 2):
        log.emit({"kind": "step", "step": step, "loss": 1.0})
    log.close()
    (note,) = run.events("note")
    assert note["text"] == "mlflow failed and shows nothing from here on: the server is gone"
    assert len(run.events("step")) == 2


def test_a_package_that_is_missing_or_cannot_begin_is_a_sentence(run, recipe, photos, monkeypatch):
    raw = tiny.raw_recipe(str(photos), tiny.ALIGN)
    raw["train"] = {**raw.get("train", {}), "trackers": ["wandb"]}
    run.path.parent.joinpath("r.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    asked = load_recipe(run.path.parent / "r.yaml")
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"wandb is not installed: pip install 'unicross\[wandb\]'"):
        train(asked, run.path)

    def refuse(*_):
        raise ValueError("no key")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("wandb", refuse))
    with pytest.raises(TrainingError, match="wandb cannot begin: no key"):
        trackers.open_trackers(["wandb"], run.path, recipe, None)


def test_the_trackers_of_a_recipe_show_its_training(run, photos, tmp_path, monkeypatch):
    shown = {}

    class Noting:
        def __init__(self, *_):
            pass

        def log(self, figures, step):  # noqa: ARG002
            shown.update(figures)

        def close(self):
            shown["closed"] = True

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", ("json", Noting))
    raw = tiny.raw_recipe(str(photos), {**tiny.ALIGN, "epochs": 1})
    raw["train"] = {**raw.get("train", {}), "trackers": ["tensorboard"]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    summary = train(load_recipe(tmp_path / "r.yaml"), run.path)
    assert shown["eval/rsum"] == summary["metrics"]["rsum"]
    assert {"step/loss", "step/lr", "epoch/seconds"} <= shown.keys()
    assert shown["closed"]
