"""The run folder: how it begins and goes on, what it keeps when it is killed, and what it tells."""

import json
import os
import shutil

import pytest

import tiny
from training_parts import Killed
from unicross.errors import CheckpointError, DataError, RecipeError
from unicross.model_folder import recipe_of, write_recipe
from unicross.run import RunFolder, Summary, checkpoint_at
from unicross.training.event_log import EventLog


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def begun(run, recipe):
    run.path.mkdir()
    write_recipe(run.path, recipe)


# -- beginning and going on -------------------------------------------------------------------------


def test_a_folder_is_free_while_it_holds_nothing_but_decoded_pictures(run):
    run.check_free()
    assert run.path.is_dir()
    run.check_free()
    run.cache.mkdir()
    run.check_free()
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"run is not empty: choose another .*--resume .*run"):
        run.check_free()


def test_a_file_is_no_run_folder(run):
    run.path.write_text("mine")
    with pytest.raises(CheckpointError, match="run: cannot be used as a run folder"):
        run.check_free()


def test_only_a_run_of_the_same_recipe_goes_on(run):
    with pytest.raises(CheckpointError, match=r"run: nothing to resume: there is no recipe\.yaml in it"):
        run.check_resumable(tiny.recipe("photos"))
    begun(run, tiny.recipe("photos"))
    run.check_resumable(tiny.recipe("photos"))
    with pytest.raises(RecipeError) as caught:
        run.check_resumable(tiny.recipe("photos", train={"batch_size": 6, "shard": True}))
    assert "these differ: train.batch_size was 8, is 6; train.shard was False, is True. " in str(caught.value)


def test_what_the_last_checkpoint_was_trained_with_counts_not_what_was_edited_since(run):
    begun(run, tiny.recipe("photos", seed=3))
    run.publish(run.last, "step-1", lambda folder: write_recipe(folder, tiny.recipe("photos")))
    run.check_resumable(tiny.recipe("photos"))
    with pytest.raises(RecipeError, match="seed was 0, is 3"):
        run.check_resumable(run.recipe())


def test_the_recipe_of_another_version_is_refused_with_what_can_be_done(run):
    begun(run, tiny.recipe("photos"))
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text().replace("mask_above:", "guard:"))
    for ask in (run.recipe, lambda: recipe_of(run.path), lambda: run.check_resumable(tiny.recipe("photos"))):
        with pytest.raises(CheckpointError) as caught:
            ask()
        sentence = str(caught.value)
        assert "recipe.yaml: unknown key stages.0.batches.guard" in sentence
        assert "damaged or of another version of unicross: its model can still be used" in sentence
        assert f"train.start_from={run.path}); to go on with the run, use that version" in sentence


def test_a_checkpoint_is_a_run_s_best_or_the_folder_itself(run, tmp_path):
    run.path.mkdir()
    assert checkpoint_at(run.path) == run.path
    run.publish(run.best, "best-1", lambda folder: (folder / "weights").write_text("1"))
    assert checkpoint_at(run.path) == run.best
    assert checkpoint_at(tmp_path / "nowhere") == tmp_path / "nowhere"


# -- checkpoints ------------------------------------------------------------------------------------


def fill(value):
    """Writes a checkpoint of two files that belong together."""

    def write(folder):
        for name in ("weights", "moments"):
            (folder / name).write_text(value)

    return write


def held(link):
    return {(link / name).read_text() for name in ("weights", "moments")}


def names(run):
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_a_new_checkpoint_takes_the_place_of_the_old_one_under_its_link(run):
    run.path.mkdir()
    run.publish(run.last, "step-1", fill("one"))
    run.publish(run.best, "best-1", fill("best"))
    run.publish(run.last, "step-2", fill("two"))
    assert (held(run.last), held(run.best)) == ({"two"}, {"best"})
    assert held(run.previous) == {"one"}
    run.publish(run.last, "step-3", fill("three"))
    assert (held(run.last), held(run.previous)) == ({"three"}, {"two"})
    assert names(run) == ["best-1", "step-2", "step-3"]
    assert not os.path.isabs(os.readlink(run.last))  # a run may be moved
    run.publish(run.last, "step-3", fill("again"))  # of a run that was killed after this and is here again
    assert (held(run.last), held(run.previous)) == ({"again"}, {"three"})
    assert len(names(run)) == 3


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run):
    run.path.mkdir()
    run.publish(run.last, "step-1", fill("one"))

    def full(folder):
        (folder / "weights").write_text("two")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=r"No space left.*the one before is untouched\. Make room"):
        run.publish(run.last, "step-2", full)
    assert held(run.last) == {"one"}
    assert names(run) == ["step-1"]


def dies_at(moment, monkeypatch):
    """From the moment-th touch of the disk on, nothing is done any more: the process is dead."""
    touched = []

    def dying(do):
        def touch(*args, **options):
            touched.append(1)
            if len(touched) >= moment:
                raise Killed
            return do(*args, **options)

        return touch

    for name in ("mkdir", "rename", "replace", "symlink", "fsync", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))


@pytest.mark.parametrize("name", ["step-2", "step-1"])  # the latter: the same step, come to again
def test_a_kill_at_any_moment_leaves_the_checkpoint_before_or_the_one_after(run, monkeypatch, name):
    moment, killed, after = 0, True, []
    while killed:
        shutil.rmtree(run.path, ignore_errors=True)
        run.path.mkdir()
        run.publish(run.last, "step-1", fill("one"))
        moment += 1
        with monkeypatch.context() as patch:
            dies_at(moment, patch)
            try:
                run.publish(run.last, name, fill("two"))
                killed = False
            except Killed:
                pass
        (value,) = held(run.last)
        after.append(value)
        run.publish(run.last, "step-3", fill("three"))  # and the run goes on, of which nothing is left over
        assert (held(run.last), held(run.previous)) == ({"three"}, {value})
        assert len(names(run)) == 2
    assert after == sorted(after)  # "one" until it is "two"
    assert {*after} == {"one", "two"}
    assert moment > 10


# -- what a run tells -------------------------------------------------------------------------------


def write(run, resume_at, steps, loss):
    run.path.mkdir(exist_ok=True)
    log = EventLog(run, resume_at, None, {})
    for step in steps:
        log.emit({"kind": "step", "step": step, "loss": loss})
    log.close()


def test_steps_after_the_checkpoint_are_told_again(run):
    write(run, None, range(1, 6), 1.0)
    write(run, 3, range(4, 7), 2.0)
    logged = [(event["step"], event["loss"]) for event in run.events("step")]
    assert logged == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_what_speaks_of_the_steps_to_come_is_told_again_by_them(run):
    run.path.mkdir()
    log = EventLog(run, None, None, {})
    for kind, step in (("round", 0), ("step", 3), ("eval", 3), ("heads", 3), ("round", 3), ("step", 4)):
        log.emit({"kind": kind, "step": step})
    log.close()
    EventLog(run, 3, None, {}).close()
    assert [(e["kind"], e["step"]) for e in run.events()] == [("round", 0), ("step", 3), ("eval", 3)]


def test_a_listener_hears_all_and_the_log_keeps_what_is_of_the_run(run):
    heard = []
    run.path.mkdir()
    log = EventLog(run, None, heard.append, {})
    for kind in ("start", "decoding", "step", "note"):
        log.emit({"kind": kind, "step": 1})
    log.close()
    assert [event["kind"] for event in heard] == ["start", "decoding", "step", "note"]
    assert [event["kind"] for event in run.events()] == ["step", "note"]


def test_events_are_picked_by_kind_and_a_torn_last_line_is_dropped(run):
    assert run.events() == []
    run.path.mkdir()
    lines = [json.dumps({"kind": kind, "step": n}) for n, kind in enumerate(("step", "eval", "step"))]
    (run.path / "metrics.jsonl").write_text("\n".join([*lines, lines[0][:12]]))
    assert [event["step"] for event in run.events()] == [0, 1, 2]
    assert [event["step"] for event in run.events("eval")] == [1]
    assert [event["step"] for event in run.events("eval", "step")] == [0, 1, 2]
    write(run, 2, [3], 1.0)  # what goes on after it is whole again
    assert [event["step"] for event in run.events()] == [0, 1, 2, 3]


def test_a_summary_says_that_the_run_is_done_and_comes_back_as_it_was(run):
    run.path.mkdir()
    assert not run.is_done
    with pytest.raises(DataError, match=r"summary\.json: not the summary of a run"):
        run.summary()
    summary = Summary(
        metrics={"rsum": 1 / 3}, forwards={"image": 2, "text": 3}, compute=0.1, minutes=1.5, epochs=4, seed=0
    )
    run.write_summary(summary)
    assert run.is_done
    assert run.summary() == summary
