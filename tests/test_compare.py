"""Comparing recipes, with a fake training whose runs cost and find what the test says."""

import io
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from rich.console import Console

from fake_runs import GIVEN, FakeSteps, N, write_recipe
from unicross.compare import compare, real_steps
from unicross.compare.table import Comparison, table
from unicross.demo.scenes import write_demo_set
from unicross.errors import DataError, RecipeError, TrainingError, TrainingStopped
from unicross.recipe import load_recipe
from unicross.result import Result


@pytest.fixture
def fake():
    return FakeSteps()


@pytest.fixture
def recipes(tmp_path):
    return [
        write_recipe(tmp_path, "plain", epochs=(1, 3)),
        write_recipe(tmp_path, "fancy", epochs=(4,), weight=0.3),
    ]


def test_each_recipe_and_seed_once(fake, recipes, tmp_path):
    told = []
    found = compare(
        recipes, [0, 1, 2], tmp_path / "out", overrides=GIVEN, progress=told.append, steps=fake.steps
    )
    assert fake.trained == [(seed, 4, False) for seed in (0, 1, 2)] * 2
    assert [row.label for row in found.rows] == ["plain", "fancy"]
    assert (found.n_images, found.n_captions, found.seeds) == (N, 2 * N, (0, 1, 2))
    plain, fancy = found.rows
    assert (plain.compute, fancy.compute) == (1 + 3 * 1.5, 4 * 2.5)
    assert (plain.image_forwards, plain.text_forwards, plain.minutes) == pytest.approx((550, 275, 0.55))
    values = [fake.evaluate(load(tmp_path / "out" / run), None).metrics["rsum"] for run in fancy.runs]
    assert fancy.metrics["rsum"].mean == pytest.approx(np.mean(values))
    assert fancy.metrics["rsum"].sd == pytest.approx(np.std(values, ddof=1))
    assert plain.against == {}
    gain = fancy.against["plain"]["rsum"]
    assert gain.mean == pytest.approx(fancy.metrics["rsum"].mean - plain.metrics["rsum"].mean)
    assert 0 < gain.low < gain.mean < gain.high
    assert {"i2t/R@1", "t2i/R@10", "rsum"} <= set(fancy.against["plain"])
    assert "plain, seed 0: training 4 epochs" in told[0]


def test_what_recipes_begin_with_is_set_beside_them(fake, recipes, tmp_path):
    pair = ["model.pair=some/pair", "model.image=null", "model.text=null"]
    found = compare(recipes, [0, 1], tmp_path / "out", overrides=[*GIVEN, *pair], steps=fake.steps)
    (untrained,) = found.untrained
    assert (untrained.label, untrained.recipe, untrained.epochs) == ("untrained", "some/pair", 0)
    assert untrained.metrics["rsum"].mean == pytest.approx(fake.result(7, 2.0).metrics["rsum"])
    for row in found.rows:
        gain = row.against["untrained"]["rsum"]
        assert gain.mean == pytest.approx(row.metrics["rsum"].mean - untrained.metrics["rsum"].mean)
    assert fake.evaluated.count("some/pair") == 1
    again = compare(recipes, [0, 1], tmp_path / "out", overrides=[*GIVEN, *pair], steps=fake.steps)
    assert again == found == Comparison.load(tmp_path / "out")
    assert fake.evaluated.count("some/pair") == 1
    (path,) = (tmp_path / "out").glob("untrained-*.json")
    replace(Result.load(path), item_ids=tuple(map(str, range(100, 100 + N)))).save(path)  # of other data
    assert compare(recipes, [0, 1], tmp_path / "out", overrides=[*GIVEN, *pair], steps=fake.steps) == found
    assert fake.evaluated.count("some/pair") == 2
    console = Console(file=io.StringIO(), width=200)
    console.print(table(found))
    shown = console.file.getvalue()
    assert "untrained" in shown.splitlines()[2]
    assert "rSum minus untrained's" in shown


def load(folder):
    return load_recipe(folder / "recipe.yaml")


def test_finished_runs_are_reused_and_killed_ones_resumed(fake, recipes, tmp_path):
    first = compare(recipes, [0, 1], tmp_path, overrides=GIVEN, steps=fake.steps)
    killed = tmp_path / first.rows[1].runs[1]
    (killed / "summary.json").unlink()
    (killed / "evaluation.json").unlink()
    fake.trained.clear(), fake.evaluated.clear()
    second = compare(recipes, [0, 1, 2], tmp_path, overrides=GIVEN, steps=fake.steps)
    assert fake.trained == [(2, 4, False), (1, 4, True), (2, 4, False)]
    assert len(fake.evaluated) == 3
    assert [row.runs[:2] for row in second.rows] == [row.runs for row in first.rows]
    fake.trained.clear()
    assert compare(recipes, [0, 1, 2], tmp_path, overrides=GIVEN, steps=fake.steps) == second
    assert not fake.trained


def test_another_recipe_is_another_run_whatever_its_name(fake, recipes, tmp_path):
    compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    fake.trained.clear()
    compare(recipes, [0], tmp_path, overrides=[*GIVEN, "train.batch_size=64"], steps=fake.steps)
    assert len(fake.trained) == 2
    fake.trained.clear()
    renamed = recipes[0].rename(tmp_path / "renamed.yaml")
    compare([renamed], [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    assert not fake.trained


def test_saved_and_loaded_is_the_same(fake, recipes, tmp_path):
    found = compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    assert Comparison.load(tmp_path) == found
    assert found.rows[0].metrics["rsum"].sd is None
    with pytest.raises(DataError, match=r"no readable comparison\.json"):
        Comparison.load(tmp_path / "absent")


def test_table_shows_figures_and_intervals(fake, recipes, tmp_path):
    found = compare(recipes, [0, 1], tmp_path, match="compute", overrides=GIVEN, steps=fake.steps)
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(table(found))
    text = console.export_text()
    row = found.rows[2]
    rsum, gain = row.metrics["rsum"], row.against["plain (equal compute)"]["rsum"]
    assert f"{rsum.mean:.1f} ±{rsum.sd:.1f}" in text
    assert f"{gain.mean:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]" in text
    assert "2 seeds" in text
    assert re.search(r"compute\W+1\.00\W+1\.82\W+1\.82", text)


def test_runs_on_other_pairs_are_refused(fake, recipes, tmp_path):
    compare(recipes[:1], [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    fake.images = N - 1
    with pytest.raises(DataError, match=r"evaluated on 59 items that are not the 60 of .*data\.split\.val"):
        compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)


def test_runs_on_data_that_changed_meanwhile_are_refused(fake, recipes, tmp_path):
    def train(recipe, folder, resume):
        fake.train(recipe, folder, resume)
        (folder / "data.json").write_text(data)

    steps = replace(fake.steps, train=train)
    data = '{"train": {"number": 24}}'
    compare(recipes[:1], [0], tmp_path, overrides=GIVEN, steps=steps)
    compare(recipes, [0], tmp_path, overrides=GIVEN, steps=steps)
    data = '{"train": {"number": 12}}'
    with pytest.raises(DataError, match=r"the data changed between .*plain.*seed-0 and .*seed-1"):
        compare(recipes, [0, 1], tmp_path, overrides=GIVEN, steps=steps)


def test_a_failing_run_is_named(fake, recipes, tmp_path):
    def fail(*_):
        raise TrainingError("the loss is nan")

    with pytest.raises(TrainingError, match=r"plain, seed 0, in .*: the loss is nan"):
        compare(recipes, [0], tmp_path, overrides=GIVEN, steps=replace(fake.steps, train=fail))


def test_data_are_read_once_before_any_run_that_they_are_for(fake, recipes, tmp_path):
    last = write_recipe(tmp_path, "last")
    last.write_text(last.read_text().replace("???", "elsewhere").replace("epochs: 2", "epochs: 1"))

    def read(data):
        fake.read.append(data.root)
        if data.root == "elsewhere":
            raise DataError("elsewhere: no column 'alt'")

    steps = replace(fake.steps, read_data=read)
    for recipe in recipes:
        recipe.write_text(recipe.read_text().replace("???", "somewhere"))
    with pytest.raises(DataError, match="no column 'alt'"):
        compare([*recipes, last], [0, 1], tmp_path / "out", steps=steps)
    assert fake.read == ["somewhere", "elsewhere"]
    assert fake.trained == []
    for _ in range(2):  # what is done is not read again
        compare(recipes, [0, 1], tmp_path / "out", steps=steps)
        assert fake.read == ["somewhere", "elsewhere", "somewhere"]


def test_torch_is_imported_when_training_begins():
    code = (
        "import sys; from unicross.compare import real_steps; real_steps(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_several_processes_are_refused(fake, recipes, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="start it without torchrun"):
        compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)


def test_wrong_arguments(fake, recipes, tmp_path):
    (tmp_path / "more").mkdir()
    twin = write_recipe(tmp_path / "more", "plain")
    with pytest.raises(RecipeError, match="different file names, got plain, plain"):
        compare([recipes[0], twin], [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    for seeds in ([], [1, 1]):
        with pytest.raises(RecipeError, match="different seeds"):
            compare(recipes, seeds, tmp_path, overrides=GIVEN, steps=fake.steps)
    with pytest.raises(RecipeError, match=r"data\.root"):
        compare(recipes, [0], tmp_path, steps=fake.steps)


def test_a_broken_summary_is_named(fake, recipes, tmp_path):
    found = compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)
    (tmp_path / found.rows[0].runs[0] / "summary.json").write_text("{}")
    with pytest.raises(DataError, match=r"summary\.json: not the summary of a run"):
        compare(recipes, [0], tmp_path, overrides=GIVEN, steps=fake.steps)


def test_real_training_and_evaluation(tmp_path):
    write_demo_set(tmp_path / "demo", 24, 12, seed=0, side=32)
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    recipe = {
        "model": {
            "image": {**tower, "model_type": "vit", "patch_size": 16, "image_size": 32},
            "text": {**tower, "model_type": "bert", "vocab_size": 200},
            "dim": 8,
            "image_size": 32,
        },
        "data": {"root": str(tmp_path / "demo")},
        "train": {"batch_size": 8, "threads": 1},
        "stages": [{"name": "align", "epochs": 2, "losses": {"image_text": 1.0}}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    heard = []
    found = compare([tmp_path / "tiny.yaml"], [3], tmp_path / "out", steps=real_steps(heard.append, "cpu"))
    (row,) = found.rows
    assert (found.n_images, found.n_captions) == (12, 60)
    assert {"i2i/R@1", "t2t/R@1", "rsum"} <= row.metrics.keys()
    assert row.image_forwards == 2 * 24 * 3  # epochs, items, forward and backward
    assert {"eval", "step"} <= {event["kind"] for event in heard}


def test_being_asked_to_stop_is_passed_on(fake, recipes, tmp_path):
    def stopped(*_):
        raise TrainingStopped("stopped by SIGTERM", 15)

    with pytest.raises(TrainingStopped, match="stopped by SIGTERM") as caught:
        compare(recipes, [0], tmp_path, overrides=GIVEN, steps=replace(fake.steps, train=stopped))
    assert caught.value.signal == 15
