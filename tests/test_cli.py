"""The command line: the whole path, exit codes, errors of one line, and a `--help` that waits for nothing."""

import json
import subprocess
import sys

import pytest
import yaml

import tiny
from unicross import cli
from unicross.model import TwoTower
from unicross.training import selection


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line as the console would. Returns exit code, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["unicross", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call


@pytest.fixture
def recipe_file(tmp_path):
    raw = tiny.raw_recipe("???", tiny.UNI, tiny.ALIGN, tiny.SHARPEN)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return tmp_path / "tiny.yaml"


def test_train_evaluate_index_search(run, recipe_file, photos, tmp_path):
    """The main job, whole, with tiny towers: all kinds of stages, then a store, then questions."""
    folder, store = tmp_path / "run", tmp_path / "store"
    code, out, err = run("train", recipe_file, f"data.root={photos}", "stages.1.epochs=2", "--out", folder)
    assert code == 0, err
    assert f"model in {folder / 'best'}" in out
    assert "epoch 2/4 align" in err

    code, out, err = run("evaluate", folder, "--json")
    assert code == 0, err
    metrics = json.loads(out)
    ways = {f"{way}/R@{k}" for way in ("i2t", "t2i", "i2i", "t2t") for k in (1, 5, 10)}
    ranks = {f"{way}/{kind}" for way in ("i2t", "t2i") for kind in ("median_rank", "mean_rank", "mAP")}
    assert metrics.keys() == ways | ranks | {"rsum", "rsum_all", "n_images", "n_captions"}
    assert (metrics["n_images"], metrics["n_captions"]) == (8, 24)
    assert 0 < metrics["rsum"] <= 600
    best = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["i2t/R@5"] == pytest.approx(best["i2t/R@5"], abs=13)  # bf16 may turn one query of eight

    code, out, err = run("evaluate", folder)
    assert code == 0, err
    assert "image to text" in out
    assert "over 8 images and 24 captions" in out

    code, out, err = run("evaluate", folder, "data.split.val=train")
    assert code == 0, err
    assert "trained on 24 of these 24 items" in err
    code, out, err = run("evaluate", folder, "model.image_size=64")
    assert code == 2
    assert "changes nothing in an evaluation" in err

    code, out, err = run("index", folder, photos / "images", "--store", store, "--json")
    assert code == 0, err
    assert json.loads(out)["added"] == 32

    code, out, err = run("search", store, "a red square at the left of a black ground", "-k", "3", "--json")
    assert code == 0, err
    hits = json.loads(out)
    assert len(hits) == 3
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]
    code, out, err = run("search", store, "--image", photos / "images" / "004.png", "-k", "1", "--json")
    assert code == 0, err
    (hit,) = json.loads(out)
    assert hit["path"].endswith("004.png")
    assert hit["score"] == pytest.approx(1, abs=0.01)


def test_a_run_that_was_cut_short_is_resumed(run, recipe_file, photos, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    one_stage = ["stages=[{name: align, epochs: 2, losses: {image_text: 1.0}}]"]
    validated = selection.validate

    def stop(*_):
        monkeypatch.setattr(selection, "validate", validated)
        raise KeyboardInterrupt

    monkeypatch.setattr(selection, "validate", stop)
    code, _, err = run("train", recipe_file, f"data.root={photos}", *one_stage, "--out", folder)
    assert code == 130
    assert err.splitlines()[-1] == f"stopped; go on with: unicross train --resume {folder}"
    code, out, err = run("train", "--resume", folder)
    assert code == 0, err
    assert "done in" in out
    assert TwoTower.load(folder).dim == 16


def test_runs_get_a_folder_of_their_own(run, recipe_file, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_stage = ["stages=[{name: align, epochs: 1, losses: {image_text: 1.0}}]"]
    assert run("train", recipe_file, f"data.root={photos}", *one_stage)[0] == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith("tiny-20")


def test_data_are_looked_at_without_training(run, photos, tmp_path):
    code, out, err = run("data", photos, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["format"], found["problems"]) == ("table", [])
    assert {name: part["pairs"] for name, part in found["splits"].items()} == {"train": 24, "val": 8}
    assert found["splits"]["val"]["captions"] == 24

    table = tmp_path / "few.csv"
    table.write_text(f"image,caption\n{photos}/images/000.png,one square\ngone.png,one square\n")
    code, out, err = run("data", table)
    assert code == 1
    assert "1 missing image" in out
    assert "one square" in out
    assert run("data", table, "--format", "zip")[0] == 2


# -- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "clop"], "recipe not found: clop"),
        (["train", "clip"], "values missing: data.root"),
        (["train", "clip", "data.root=x", "train.batchsize=3"], "unknown key train.batchsize"),
        (["train", "clip", "data.root=/nowhere", "--out", "RUN"], "/nowhere"),
        (["train", "demo", "data.root=x", "data.split.val=1.5"], "data.split.val: give a split's name"),
        (
            ["train", "clip", "data.root=x", "data.caption=[a,a]"],
            "error: override 'data.caption=[a,a]': data",
        ),
        (
            ["train", "clip", "data.root=x", "losses.nonsense=1"],
            "error: override 'losses.nonsense=1': ",
        ),
        (["train", "clip"], "error: clip: values missing: data.root"),
        (
            ["data", "x", "data.caption=[a,a]"],
            "error: override 'data.caption=[a,a]': data.caption: the column",
        ),
        (
            ["train", "iucc", "data.root=x", "model.pair=clip"],
            "a recipe for pairs: tune, tune_clip or tune_lora",
        ),
        (["compare", "clip", "data.root=x", "data.split.val=null"], "clip has no validation split"),
        (
            ["train", "clip", "data.root=x", "--out", "RUN", "--device", "toaster"],
            "device 'toaster' cannot be used",
        ),
        (["train", "--resume", "RUN"], "nothing to resume"),
        (["evaluate", "RUN"], "say which with data.root="),
        (["index", "RUN", ".", "--store", "STORE"], "RUN: no such folder"),
        (["search", "STORE", "a dog"], "STORE"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(run, tmp_path, arguments, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").touch()
    code, out, err = run(*arguments)
    assert code == 1
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command"),
        (["train"], "give either a recipe or --resume RUN"),
        (["train", "clip", "--resume", "x"], "give either a recipe or --resume RUN"),
        (["train", "--resume", "x", "--out", "y"], "--out goes with a recipe"),
        (["train", "--resume", "x", "seed=3"], "--resume takes no overrides"),
        (["train", "clip", "--speed", "3"], "No such option"),
        (["evaluate"], "Missing argument"),
        (["evaluate", "x", "--folds", "0"], "--folds"),
        (["search", "store"], "say what to look for"),
        (["search", "store", "a dog", "--weight", ".2"], "--weight is between words and --image"),
        (["search", "store", "a dog", "--near", ".9"], "--near says from which cosine --fold folds"),
        (["serve", "store", "--port", "99999"], "--port"),
    ],
)
def test_usage_errors_exit_with_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err


def test_no_command_shows_the_help(run):
    code, out, err = run()
    assert code == 2
    assert "train" in out + err
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("unicross ")


def test_help_imports_nothing_heavy():
    """Every command's help in one process: neither torch nor anything else that takes its time."""
    script = """
import sys
from typer.testing import CliRunner
from unicross.cli import app
from typer.main import get_command
names = [[]]
for name, command in get_command(app).commands.items():
    names += [[name, inner] for inner in command.commands] if hasattr(command, "commands") else [[name]]
for arguments in names:
    result = CliRunner().invoke(app, [*arguments, "--help"])
    assert result.exit_code == 0, (arguments, result.output)
    assert "Usage" in result.output
print(" ".join({"torch", "transformers", "numpy", "faiss", "kornia", "lancedb", "PIL"} & set(sys.modules)))
print(len(names))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported, count = done.stdout.split("\n")[:2]
    assert imported == ""
    assert int(count) >= 9
