"""Keep runs, set them against each other, and compute again what documents cite of them.

    python benchmarks/runs.py keep runs/clip=A-clip-seed0 runs/iucc=A-iucc-seed0 --note "two threads"
    python benchmarks/runs.py compare A-clip A-iucc            # names before -seedN; NAME:0,1 takes two seeds
    python benchmarks/runs.py recipe A-iucc-seed0 > iucc.yaml  # the run's recipe, every value written out
    python benchmarks/runs.py intervals                        # every interval in README.md and docs/
    python benchmarks/runs.py plots                            # docs/images from benchmarks' figures

Runs are kept in the tables under experiments/ (see its README), so seeds may come from different days and
machines. Paths are cut to their last two parts, so that no machine's folders enter the repository.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import experiments
from experiments import METRICS, RECALLS, Row
from unicross.compare.intervals import Difference, compared_metrics, paired_difference, per_item
from unicross.compare.table import difference_text
from unicross.events import Event
from unicross.model_folder import RECIPE
from unicross.result import Result
from unicross.run import RunFolder

FloatArray = NDArray[np.float64]
BOUNDS = re.compile(r"\[[+-]\d+\.\d, [+-]\d+\.\d\]")
FIGURE = re.compile(r"[+-]\d+\.\d")
SUMMARY = "summary.json"
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}
"""Student's t below which 97.5 % lie, by degrees of freedom."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("keep", help="add finished or stopped runs to the tables")
    command.add_argument("runs", nargs="+", metavar="RUN=NAME")
    command.add_argument("--note", default="", help="how they were run, where that matters")
    command.add_argument(
        "--machine", help="hardware and torch of runs from elsewhere: 'one H100, torch 2.11.0'"
    )
    command.set_defaults(
        run=lambda given: [keep(*run.rsplit("=", 1), given.note, given.machine) for run in given.runs]
    )
    command = commands.add_parser("compare", help="mean and deviation over seeds, and intervals of rSum")
    command.add_argument(
        "names", nargs="+", help="before -seedN; the first is what the others are set against"
    )
    command.set_defaults(run=lambda given: compare(given.names))
    command = commands.add_parser("recipe", help="print a run's recipe as YAML")
    command.add_argument("name")
    command.set_defaults(run=lambda given: print(yaml.safe_dump(recipe(given.name), sort_keys=False), end=""))
    command = commands.add_parser("intervals", help="compute every cited interval again")
    command.set_defaults(run=lambda _: intervals())
    command = commands.add_parser("plots", help="draw how time and memory grow")
    command.set_defaults(run=lambda _: plots())
    given = parser.parse_args()
    given.run(given)


def keep(run: str, name: str, note: str, machine: str | None = None) -> None:
    """Add a run folder to runs.csv, curves.csv and, where `unicross compare` evaluated it, ranks.parquet.

    A run that was stopped is kept with what its last look at validation found. `machine`: hardware and
    torch's version, where it ran elsewhere.
    """
    folder = RunFolder(Path(run))
    # Recipe and summary may be of any version of unicross, so they are read as plain data.
    recipe: dict[str, Any] = yaml.safe_load((folder.path / RECIPE).read_text(encoding="utf-8"))
    seed, data = recipe.pop("seed"), _last_parts(recipe["data"].pop("root"))
    for source in ("pair", "image", "text"):
        if isinstance(recipe["model"].get(source), str):
            recipe["model"][source] = _last_parts(recipe["model"][source])
    elsewhere = recipe.get("forgetting", {}).items()
    recipe |= {"forgetting": {name: _last_parts(root) for name, root in elsewhere}} if elsewhere else {}
    recipes = experiments.read_recipes()
    if not any(experiments.can_describe(recipe, base) for base in recipes.values()):
        recipes = experiments.shipped_recipes()  # recipes lost keys since the others were written down
        if not any(experiments.can_describe(recipe, base) for base in recipes.values()):
            recipes = {f"{name}@{date.today().isoformat()}": recipe}  # or gained some since the run
        experiments.add_recipes(recipes)
    base, overrides = experiments.describe(recipe, recipes)
    text = (folder.path / SUMMARY).read_text(encoding="utf-8") if folder.is_done else "{}"
    summary = json.loads(text)
    here = f"{experiments.hardware(recipe['train']['threads'])}, torch {torch.__version__}"
    ran_on, _, version = (machine or here).rpartition(", torch ")
    looks, epochs = folder.events("eval"), folder.events("epoch")
    metrics = summary.get("metrics") or (looks[-1] if looks else {})
    forwards = summary.get("forwards", {})
    row = {
        "name": name,
        "recipe": base,
        "overrides": overrides,
        "data": data,
        "seed": seed,
        "date": date.today().isoformat(),
        "hardware": ran_on,
        "torch": version,
        "note": note,
        "finished": "yes" if folder.is_done else "no",
        "epochs": summary.get("epochs", len(epochs)),
        **{metric: metrics[metric] for metric in METRICS if metric in metrics},
        "compute_gflop": summary.get("compute") or (epochs[-1]["compute"] if epochs else ""),
        "image_forwards": forwards.get("image", ""),
        "text_forwards": forwards.get("text", ""),
        "minutes": summary.get("minutes", ""),
    }
    others = [other for other in experiments.read_rows("runs") if other["name"] != name]
    rows = sorted([*others, row], key=lambda row: row["name"])
    experiments.write_rows("runs", experiments.RUN_COLUMNS, rows)
    _keep_curve(name, folder.events("eval", "round"))
    if folder.evaluation.is_file():
        result = Result.load(folder.evaluation)
        experiments.add_ranks([{"name": name} | experiments.kept_ranks(result)])


def _keep_curve(name: str, events: Sequence[Event]) -> None:
    """A row an epoch after which the run looked at validation or made a round for the next one."""
    curve: dict[int, dict[str, Any]] = {}
    for event in events:
        columns = {key: event[key] for key in experiments.CURVE_COLUMNS[2:] if key in event}
        curve.setdefault(event["epoch"], {"name": name, "epoch": event["epoch"]}).update(columns)
    others = [row for row in experiments.read_rows("curves") if row["name"] != name]
    rows = sorted([*others, *curve.values()], key=lambda row: (row["name"], int(row["epoch"])))
    experiments.write_rows("curves", experiments.CURVE_COLUMNS, rows)


def _last_parts(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def compare(names: Sequence[str]) -> None:
    """Print a column a name: means and deviations over seeds, and rSum minus the first one's."""
    sides = [_side(name) for name in names]
    table = Table("", *(f"{name}, {len(side)} seeds" for name, side in zip(names, sides, strict=True)))
    for column in (*RECALLS, "rsum", "compute_gflop", "minutes"):
        values = [_values(side, column) for side in sides]
        spread = [f" ± {statistics.stdev(v):.1f}" if len(v) > 1 else "" for v in values]
        means = [f"{statistics.mean(v):.1f}" if v else "" for v in values]
        table.add_row(column, *(mean + sd for mean, sd in zip(means, spread, strict=True)))
    differences = [difference_text(_difference(sides[0], side, "rsum")) for side in sides[1:]]
    table.add_row(f"rsum less {names[0]}'s", "", *differences)
    Console().print(table)


def _side(text: str) -> list[Row]:
    """The rows of the runs NAME-seedN, by seed; `NAME:0,1` names which seeds."""
    name, _, seeds = text.partition(":")
    rows = {row["name"]: row for row in experiments.read_rows("runs")}
    if seeds:
        names = [f"{name}-seed{seed}" for seed in seeds.split(",")]
    else:
        names = sorted(other for other in rows if re.fullmatch(rf"{re.escape(name)}-seed\d+", other))
    if not names or not all(name in rows for name in names):
        raise SystemExit(f"{text}: no such runs in experiments/runs.csv")
    return [rows[name] for name in names]


def _values(side: Sequence[Row], column: str) -> list[float]:
    """A value a seed: recalls by the ranks where all are kept, else as runs.csv has them."""
    names = [row["name"] for row in side]
    if all(name in experiments.read_ranks() for name in names):
        ranks, owners = experiments.side_ranks(names)
        if column in compared_metrics(ranks):
            return per_item(ranks, owners, column).mean(axis=1).tolist()
    return [float(row[column]) for row in side if row[column]]


def _difference(a: Sequence[Row], b: Sequence[Row], metric: str) -> Difference:
    """The paired bootstrap interval over images and seeds that `unicross compare` gives."""
    names = [row["name"] for row in (*a, *b)]
    try:
        ranks, owners = experiments.side_ranks(names)
    except (KeyError, ValueError) as error:
        raise SystemExit(f"no interval of {', '.join(names)}: {error}") from error
    side_a, side_b = (
        {way: of_way[rows] for way, of_way in ranks.items()}
        for rows in np.split(np.arange(len(names)), [len(a)])
    )
    return paired_difference(side_a, side_b, owners, [metric])[metric]


def _difference_over_seeds(a: Sequence[Row], b: Sequence[Row], metric: str) -> Difference:
    """Student's interval of the differences of equal seeds, for runs whose ranks are not kept."""
    differences = [float(after[metric]) - float(before[metric]) for before, after in zip(a, b, strict=True)]
    mean, n = statistics.mean(differences), len(differences)
    half = T_975[n - 1] * statistics.stdev(differences) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half)


def recipe(name: str) -> dict[str, Any]:
    """The recipe of a run, with its seed and data. What it names may not be a key of recipes any more."""
    rows = {row["name"]: row for row in experiments.read_rows("runs")}
    if name not in rows:
        raise SystemExit(f"{name}: no such run in experiments/runs.csv")
    row = rows[name]
    whole = experiments.restore(row["recipe"], row["overrides"], experiments.read_recipes())
    return {"seed": int(row["seed"])} | whole | {"data": {"root": row["data"]} | whole["data"]}


def agree(computed: str, cited: str) -> bool:
    """Whether the first ends with the second, to a tenth: processors round what lies at an edge otherwise."""
    figures = [float(figure) for figure in FIGURE.findall(cited)]
    ours = [float(figure) for figure in FIGURE.findall(computed)][-len(figures) :]
    return len(ours) == len(figures) and np.allclose(ours, figures, rtol=0, atol=0.11)


def intervals() -> None:
    """Print what became of each interval of intervals.csv; exit with 1 where one is wrong or not listed."""
    rows = experiments.read_rows("intervals")
    agreeing, without = 0, []
    wrong = unlisted(rows)
    for row in rows:
        if row["why_not"]:
            without.append(f"{row['document']}: {row['cited']}: {row['why_not']}")
        elif agree(computed := compute(row), row["cited"]):
            agreeing += 1
        else:
            wrong.append(f"{row['document']}: {row['cited']}: its runs give {computed}")
    for line in [*without, *wrong]:
        print(line)
    print(
        f"{len(rows)} cited intervals: {agreeing} agree, {len(without)} cannot be computed again, "
        f"{len(wrong)} problems"
    )
    if wrong:
        raise SystemExit(1)


def compute(row: Row) -> str:
    """The interval of a row of intervals.csv, as documents write it."""
    return _compute(row["method"], row["a"], row["b"], row["metric"])


@cache
def _compute(method: str, a: str, b: str, metric: str) -> str:
    difference = _difference_over_seeds if method == "seeds" else _difference
    return difference_text(difference(_side(a), _side(b), metric))


def unlisted(rows: Sequence[Row]) -> list[str]:
    """What README.md and docs/ cite that intervals.csv does not list, and the reverse."""
    problems = []
    for path in [experiments.ROOT / "README.md", *sorted((experiments.ROOT / "docs").rglob("*.md"))]:
        document = path.relative_to(experiments.ROOT).as_posix()
        text = " ".join(path.read_text(encoding="utf-8").split())
        cited = [row["cited"] for row in rows if row["document"] == document]
        listed = {bounds for one in cited for bounds in BOUNDS.findall(one)}
        problems += [
            f"{document}: {bounds}: not in experiments/intervals.csv"
            for bounds in sorted(set(BOUNDS.findall(text)) - listed)
        ]
        problems += [f"{document}: {one}: not in the document" for one in cited if one not in text]
    return problems


CURVES = (
    ("Flickr8k, all captions", {"A-clip24-half-patches": "clip", "A-heads-23-half-patches": "iucc"}),
    ("Flickr8k, 600 captions", {"B-clip81-160": "few_clip", "B-heads-uncorrected": "heads"}),
    ("16,000 drawn scenes", {"D-16000-clip36": "demo_clip", "D-16000-clusters4-gallery-36": "demo"}),
)
"""Learning curves: a title, and runs before -seedN with what they are called. Without epochs it is a line."""


def plots() -> None:
    """Draw docs/images: benchmarks against their size, and learning curves of kept runs."""
    import matplotlib.pyplot as plt

    for name, size, title in (
        ("clustering", "items", "Balanced clusters of 32, 256 dimensions, 2 cores"),
        ("evaluation-scale", "captions", "Evaluation, five captions an image, 2 cores"),
    ):
        rows = experiments.read_benchmarks()[name]["rows"]
        figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        for axes, key, label in ((time, "seconds", "seconds"), (memory, "peak_gib", "peak memory, GiB")):
            axes.loglog([row[size] for row in rows], [row[key] for row in rows], "o-", color="#4f46c4")
            axes.set(xlabel=size, ylabel=label)
            axes.grid(alpha=0.3)
        figure.suptitle(title)
        _save(figure, name)

    figure, panels = plt.subplots(1, len(CURVES), figsize=(11, 3.4), layout="constrained")
    for axes, (title, runs) in zip(panels, CURVES, strict=True):
        for (name, label), colour in zip(runs.items(), ("#8a8a8a", "#4f46c4"), strict=True):
            epochs, rsums = _mean_curve(name)
            if len(epochs) == 1:  # heads alone, before any epoch
                axes.axhline(rsums[0], color=colour, label=label)
            else:
                axes.plot(100 * epochs / epochs[-1], rsums, "o-", markersize=3, color=colour, label=label)
        axes.set(title=title, xlabel="epochs, in percent of the run", ylabel="rSum")
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, "learning-curves")


def _mean_curve(name: str) -> tuple[FloatArray, FloatArray]:
    """Epochs [E] and the mean rSum over seeds at each [E]."""
    runs = re.compile(rf"{name}-seed\d+")
    rows = [row for row in experiments.read_rows("curves") if runs.fullmatch(row["name"]) and row["rsum"]]
    epochs = sorted({int(row["epoch"]) for row in rows})
    at = {epoch: [float(row["rsum"]) for row in rows if int(row["epoch"]) == epoch] for epoch in epochs}
    return np.array(epochs, float), np.array([statistics.mean(at[epoch]) for epoch in epochs])


def _save(figure: Any, name: str) -> None:
    path = experiments.ROOT / "docs" / "images" / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    path.write_text(" ".join(path.read_text(encoding="utf-8").split()) + "\n", encoding="utf-8")  # one line


if __name__ == "__main__":
    main()
