"""What correcting its hubs brings a trained model: `python benchmarks/hubness.py RUN...`.

Each run's best weights are evaluated on its validation items without the correction and with it, as
`train.correct_hubness=true` would have fitted it at the end; and for samples of other sizes and other
steepness where these are given.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import unicross.model.hubness as correction
import unicross.training.hubness_fitting as hubness_fitting
from experiments import keep
from unicross import TwoTower
from unicross.data.load import read_splits
from unicross.run import RunFolder
from unicross.streams import stream
from unicross.training.dataset import cached_side, make_dataset
from unicross.training.embedding import validate

SHOWN = (*(f"{way}/R@{k}" for way in ("i2t", "t2i") for k in (1, 10)), "i2i/R@1", "t2t/R@1", "rsum")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--steepness", type=float, nargs="+", default=[correction.STEEPNESS])
    parser.add_argument(
        "--most", type=int, nargs="+", default=[hubness_fitting.MOST], help="items of a sample"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    table, rows = Table("run", "steepness", "sample", *SHOWN), {}
    for run in arguments.runs:
        for name, metrics in compared(run, arguments.steepness, arguments.most).items():
            rows[f"{run.name} {name}"] = {key: metrics[key] for key in SHOWN if key in metrics}
            shown = (f"{metrics[key]:.1f}" if key in metrics else "" for key in SHOWN)
            table.add_row(run.name, *name.split(), *shown)
    Console(width=120).print(table)
    if arguments.keep:
        keep(arguments.keep, rows=rows)


def compared(run: Path, steepness: list[float], most: list[int]) -> dict[str, dict[str, float]]:
    """Metrics on the validation items by what the correction was fitted with, and without it."""
    model, recipe = TwoTower.load(run), RunFolder(run).recipe()
    model.hubness = None
    train_items, val_items, _ = read_splits(recipe.data)
    data, val = (
        make_dataset(
            items,
            model,
            recipe.data.model_copy(update={"cache": "memory"}),
            side=side,
            where=None,
            rng=stream(recipe.seed, "captions"),
            on_progress=lambda *_: None,
        )[0]
        for items, side in (
            (train_items, cached_side(recipe.data, model.picture_rules)),
            (val_items, model.picture_rules.side),
        )
    )
    found = {"- -": validate(model, val).metrics}
    for correction.STEEPNESS, hubness_fitting.MOST in itertools.product(steepness, most):
        model.hubness = None
        hubness_fitting.fit_hubness(model, data, stream(recipe.seed, "hubness"))
        found[f"{correction.STEEPNESS:g} {hubness_fitting.MOST}"] = validate(model, val).metrics
    return found


if __name__ == "__main__":
    main()
