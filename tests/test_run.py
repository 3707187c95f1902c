"""What a run tells is kept once, also where it was cut short and went on."""

import json

import pytest

from unicross.run import EventLog


def write(run, resume_at, steps, loss):
    log = EventLog(run, resume_at, None)
    for step in steps:
        log.emit({"kind": "step", "step": step, "loss": loss})
    log.close()


def test_steps_after_the_checkpoint_are_told_again(tmp_path):
    write(tmp_path, None, range(1, 6), 1.0)
    write(tmp_path, 3, range(4, 7), 2.0)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    told = [(event["step"], event["loss"]) for event in map(json.loads, lines)]
    assert told == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_tensorboard_shows_each_step_once(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path, None, range(1, 6), 1.0)
    write(tmp_path, 3, range(4, 7), 2.0)
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = [(event.step, event.value) for event in board.Scalars("step/loss")]
    assert shown == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]
