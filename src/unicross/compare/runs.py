"""The runs of a comparison: one for each recipe and seed, in a folder of its own, done or found done.

Finished runs are known by the recipe in them and reused, killed ones resumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unicross.compare.intervals import Ranks, ranks_of
from unicross.compare.side_by_side import NewRun, train_side_by_side
from unicross.config import DataConfig, Recipe
from unicross.data.load import read_splits, read_validation
from unicross.errors import CheckpointError, TrainingStopped, UnicrossError
from unicross.model_folder import has_recipe, recipe_of
from unicross.recipe import dump_recipe
from unicross.result import Result
from unicross.run import RunFolder, Summary

SAME_COMPUTE = 0.02
"""A recipe within this share of the dearest one's compute counts as equal."""


@dataclass(frozen=True)
class Steps:
    """What is done with a run and for it; tests put fakes here."""

    train: Callable[[Recipe, Path, bool], None]
    """(recipe, run folder, resume): trains and leaves `summary.json` in the run folder."""
    evaluate: Callable[[Recipe, Path], Result]
    """(recipe, run folder): evaluates the best checkpoint on the validation pairs."""
    evaluate_untrained: Callable[[Recipe, str], Result]
    """(recipe, pair or checkpoint): evaluates that on the validation pairs of the recipe."""
    read_data: Callable[[DataConfig], object]
    """(data): raises where they cannot be read, or lack a split or column."""
    train_side_by_side: Callable[[Sequence[NewRun], int, Callable[[str], None]], None] = train_side_by_side
    """(runs, how many at once, who is told what they print): trains several as `train` does."""


@dataclass(frozen=True)
class Entry:
    label: str
    path: Path
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class Runs:
    """An entry with its runs done, one a seed."""

    entry: Entry
    folders: tuple[Path, ...]
    results: tuple[Result, ...]
    summaries: tuple[Summary, ...]

    @property
    def compute(self) -> float:
        return float(np.mean([summary.compute for summary in self.summaries]))

    @property
    def ranks(self) -> Ranks:
        return ranks_of(self.results)


def finish_all(
    entries: Sequence[Entry],
    seeds: Sequence[int],
    out: Path,
    steps: Steps,
    progress: Callable[[str], None],
    at_once: int = 1,
) -> list[Runs]:
    """Train and evaluate what is not there yet, so many runs at once.

    The data of all that are to be trained are read before: with a wrong name in those of the last recipe, the
    others would be trained in vain, and the first would look for its towers.
    """
    recipes = [(entry, entry.recipe.model_copy(update={"seed": seed})) for entry in entries for seed in seeds]
    runs = [
        NewRun(_name(entry, recipe.seed), recipe, folder, RunFolder(folder).has_begun)
        for entry, recipe in recipes
        if not RunFolder(folder := run_folder(recipe, entry.path.stem, out)).is_done
    ]
    for data in {run.recipe.data.model_dump_json(): run.recipe.data for run in runs}.values():
        steps.read_data(data)
    if at_once > 1 and runs:
        steps.train_side_by_side(runs, at_once, progress)
    return [_finish(entry, seeds, out, steps, progress) for entry in entries]


def _name(entry: Entry, seed: int) -> str:
    return f"{entry.label}, seed {seed}"


def _finish(
    entry: Entry, seeds: Sequence[int], out: Path, steps: Steps, progress: Callable[[str], None]
) -> Runs:
    folders, results, summaries = [], [], []
    for seed in seeds:
        recipe = entry.recipe.model_copy(update={"seed": seed})
        folder = run_folder(recipe, entry.path.stem, out)
        name = _name(entry, seed)
        if RunFolder(folder).is_done:
            progress(f"{name}: finished, in {folder}")
        else:
            resume = RunFolder(folder).has_begun
            progress(f"{name}: {'resuming' if resume else 'training'} {recipe.epochs} epochs in {folder}")
            try:
                steps.train(recipe, folder, resume)
            except TrainingStopped:  # it was asked to: nothing is wrong with the run
                raise
            except UnicrossError as error:
                raise type(error)(f"{name}, in {folder}: {error}") from error
        summaries.append(RunFolder(folder).summary())
        evaluation = RunFolder(folder).evaluation
        if not evaluation.is_file():
            progress(f"{name}: evaluating")
            steps.evaluate(recipe, folder).save(evaluation)
        results.append(Result.load(evaluation))
        folders.append(folder)
    return Runs(entry, tuple(folders), tuple(results), tuple(summaries))


def run_folder(recipe: Recipe, stem: str, out: Path) -> Path:
    """Where the run of a recipe and its seed lies under `out`, or will lie.

    A run is known by the recipe in it, value by value, whatever the file was called; new ones are named by
    the file's `stem` and a hash of the recipe without its seed.
    """
    for folder in sorted(out.glob(f"*/seed-{recipe.seed}")):
        with contextlib.suppress(CheckpointError):  # of a version with other keys: another recipe
            if has_recipe(folder) and recipe_of(folder) == recipe:
                return folder
    text = dump_recipe(recipe.model_copy(update={"seed": 0}))
    return out / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}" / f"seed-{recipe.seed}"


def lengthened(runs: Runs, target: float) -> Entry | None:
    """The recipe with so many more epochs of its last stage that it spends the target compute; None where it
    lacks less than half an epoch, as a whole one would part the two further, or where that stage has none.

    Whole epochs: 2 % less are taken for equal, and nearly as much as an epoch more may be spent.
    """
    recipe = runs.entry.recipe
    last = recipe.stages[-1]
    if last.epochs == 0:
        return None
    per_epoch = float(
        np.mean(
            [
                _last_stage_compute(f, last.epochs) or s.compute / recipe.epochs
                for f, s in zip(runs.folders, runs.summaries, strict=True)
            ]
        )
    )
    if 2 * (target - runs.compute) <= per_epoch:
        return None
    more = math.ceil((target * (1 - SAME_COMPUTE) - runs.compute) / per_epoch)
    longer = last.model_copy(update={"epochs": last.epochs + more})
    return Entry(
        f"{runs.entry.label} (equal compute)",
        runs.entry.path,
        recipe.model_copy(update={"stages": (*recipe.stages[:-1], longer)}),
    )


def _last_stage_compute(folder: Path, epochs: int) -> float | None:
    """Compute of one epoch of the last stage by the run's log; None where the log does not tell."""
    spent = [0.0]
    spent += [event["compute"] for event in RunFolder(folder).events("epoch") if "compute" in event]
    return (spent[-1] - spent[-1 - epochs]) / epochs if len(spent) > epochs else None


def real_steps(
    listener: Callable[[Mapping[str, Any]], None] | None = None, device: str | None = None
) -> Steps:
    """Training and evaluation as they are; `listener` hears training's events (see `training.events`)."""
    # They import torch and models when they begin: wrong data are told without.

    def train_run(recipe: Recipe, folder: Path, resume: bool) -> None:
        from unicross.training import train

        train(recipe, folder, resume=resume, listener=listener, device=device)

    def evaluate_untrained(recipe: Recipe, source: str) -> Result:
        from unicross.evaluation import evaluate
        from unicross.model import TwoTower

        return evaluate(TwoTower.load(source, device), read_validation(recipe.data))

    def evaluate_run(recipe: Recipe, folder: Path) -> Result:
        return evaluate_untrained(recipe, str(folder / "best"))

    side_by_side = partial(train_side_by_side, device=device)
    return Steps(train_run, evaluate_run, evaluate_untrained, read_splits, side_by_side)
