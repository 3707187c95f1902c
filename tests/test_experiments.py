"""The tables of kept runs: what documents cite is in them, and what is added comes back as it was."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from unicross.evaluation import evaluate_embeddings
from unicross.metrics import r_sum

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import experiments
import runs

RECIPE = {
    "model": {"image": {"model_type": "vit", "hidden_size": 16}, "text": "tiny", "dim": 8},
    "train": {"batch_size": 8, "threads": None},
    "stages": [
        {"name": "align", "epochs": 2, "optim": {"image_lr": 1e-4, "betas": [0.9, 0.98]}},
        {"name": "sharpen", "epochs": 3, "optim": {"image_lr": 5e-5, "betas": [0.9, 0.98]}},
    ],
}


def test_every_interval_in_the_documents_is_listed():
    assert runs.unlisted(experiments.read_rows("intervals")) == []


def test_cited_intervals_come_out_of_the_kept_ranks():
    rows = [row for row in experiments.read_rows("intervals") if not row["why_not"]]
    assert len(rows) > 50
    by_method = {row["method"]: row for row in rows}
    for row in [*rows[:2], by_method["seeds"]]:
        assert runs.agree(runs.compute(row), row["cited"]), row


def test_intervals_agree_to_a_tenth():
    cited = "+66.0 [+53.3, +79.1]"
    assert runs.agree("rsum: +66.0 [+53.2, +79.1]", cited)
    assert not runs.agree("rsum: +66.0 [+53.1, +79.1]", cited)
    assert not runs.agree("rsum: +66.0", cited)


def test_what_has_no_interval_says_why():
    for row in experiments.read_rows("intervals"):
        assert bool(row["why_not"]) != bool(row["method"]), row


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_recipe_told_by_its_differences_comes_back_whole(stages):
    base = RECIPE | {"stages": RECIPE["stages"][:1] * stages}
    other = json.loads(json.dumps(RECIPE))
    other["model"]["text"] = "folder with spaces/model"
    other["stages"][1]["optim"]["betas"] = [0.8, 0.9]
    name, overrides = experiments.describe(other, {"base": base})
    assert experiments.restore(name, overrides, {"base": base}) == other


def test_every_kept_recipe_can_be_written_out():
    recipes = experiments.read_recipes()
    for row in experiments.read_rows("runs"):
        recipe = experiments.restore(row["recipe"], row["overrides"], recipes)
        if row["finished"] == "yes":
            assert sum(stage["epochs"] for stage in recipe["stages"]) == int(row["epochs"]), row["name"]


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Tables of their own, empty, and a run folder to keep."""
    monkeypatch.setattr(experiments, "FOLDER", tmp_path / "experiments")
    experiments.FOLDER.mkdir()
    experiments.read_ranks.cache_clear()
    experiments.write_rows("runs", experiments.RUN_COLUMNS, [])
    experiments.write_rows("curves", experiments.CURVE_COLUMNS, [])
    (experiments.FOLDER / "recipes.yaml").write_text(yaml.safe_dump({"base": RECIPE}))
    (experiments.FOLDER / "benchmarks.json").write_text("{}")
    yield tmp_path
    experiments.read_ranks.cache_clear()


def fake_run(folder, seed, result):
    folder.mkdir()
    recipe = {"seed": seed, **RECIPE, "data": {"root": "/some/where/photos/all", "format": None}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    events = [
        {"kind": "round", "epoch": 1, "hardness": 0.25, "hardness_random": 0.125, "step": 3},
        {"kind": "epoch", "epoch": 2, "compute": 7.0},
        {"kind": "eval", "epoch": 2, "rsum": result.metrics["rsum"], "i2t/R@1": 10.0, "t2i/R@1": 20.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    summary = {
        "metrics": result.metrics,
        "forwards": {"image": 4, "text": 6},
        "compute": 7.0,
        "minutes": 1.5,
        "epochs": 5,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    result.save(folder / "evaluation.json")


def test_kept_runs_come_back_with_their_ranks(tables):
    text_image = np.array([0, 0, 1, 2, 2, 2, 3])
    results = {}
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        results[seed] = evaluate_embeddings(rng.normal(size=(4, 3)), rng.normal(size=(7, 3)), text_image)
        fake_run(tables / f"run{seed}", seed, results[seed])
        runs.keep(str(tables / f"run{seed}"), f"a-seed{seed}", "a note")
    runs.keep(str(tables / "run0"), "a-seed0", "again")
    rows = experiments.read_rows("runs")
    assert [(row["name"], row["note"]) for row in rows] == [("a-seed0", "again"), ("a-seed1", "a note")]
    assert rows[0]["data"] == "photos/all"
    assert float(rows[1]["rsum"]) == pytest.approx(results[1].metrics["rsum"], abs=1e-4)
    recipe = runs.recipe("a-seed1")
    assert (recipe["seed"], recipe["data"]["root"], recipe["stages"]) == (1, "photos/all", RECIPE["stages"])
    ranks, owners = experiments.side_ranks(["a-seed1", "a-seed0"])
    assert owners["t2i"].tolist() == text_image.tolist()
    assert r_sum(ranks["i2t"][0], ranks["t2i"][0]) == pytest.approx(results[1].metrics["rsum"])
    assert r_sum(ranks["i2t"][1], ranks["t2i"][1]) == pytest.approx(results[0].metrics["rsum"])
    curve = [row for row in experiments.read_rows("curves") if row["name"] == "a-seed0"]
    assert [(row["epoch"], row["hardness"], row["i2t/R@1"]) for row in curve] == [
        ("1", "0.25", ""),
        ("2", "", "10"),
    ]


def test_recipes_that_lost_a_key_are_told_by_those_of_today(tables):
    today = experiments.shipped_recipes()
    older = {name: {**recipe, "given_up": 1} for name, recipe in today.items()}
    changed = json.loads(json.dumps(next(iter(today.values()))))
    changed["train"]["batch_size"] = 7
    assert not any(experiments.can_describe(changed, base) for base in older.values())
    (tables / "experiments" / "recipes.yaml").write_text("# recipes\n")
    experiments.add_recipes(today)
    assert experiments.read_recipes() == today
    name, overrides = experiments.describe(changed, experiments.read_recipes())
    assert experiments.restore(name, overrides, today) == changed


@pytest.mark.usefixtures("tables")
def test_figures_of_a_benchmark_are_kept_beside_the_others():
    experiments.keep("speed", rows={"clip": 1.5})
    experiments.keep("memory", peak_gib=3)
    experiments.keep("speed", rows={"clip": 2.5})
    figures = experiments.read_benchmarks()
    assert list(figures) == ["memory", "speed"]
    assert figures["speed"]["rows"] == {"clip": 2.5}
    assert {"date", "hardware", "torch"} <= figures["memory"].keys()
