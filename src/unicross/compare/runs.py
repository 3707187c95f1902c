"""Training and evaluating what a comparison still lacks, and setting it against the first recipe.

Every recipe is trained with every seed in its own folder, evaluated on the same pairs, and set against the
first recipe by a paired bootstrap over items and seeds. With `match="compute"` each cheaper recipe is
trained a second time, its last stage lengthened until it spends what the dearest one spends: both
matchings are in the table. Compute is what the runs measured: tower forwards weighted by the towers' cost.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unicross.compare.intervals import Ranks, owners_of, paired_difference, ranks_of
from unicross.compare.table import Comparison, Match, RecipeRow, Spread
from unicross.config import Recipe
from unicross.errors import (
    CheckpointError,
    DataError,
    RecipeError,
    TrainingError,
    TrainingStopped,
    UnicrossError,
)
from unicross.evaluation import Result
from unicross.recipe import dump_recipe, load_recipe
from unicross.run import RunFolder, Summary, has_recipe, recipe_of

SAME_COMPUTE = 0.02
"""A recipe within this share of the dearest one's compute counts as equal."""


@dataclass(frozen=True)
class Steps:
    """The two things done with a run; tests put fakes here."""

    train: Callable[[Recipe, Path, bool], None]
    """(recipe, run folder, resume): trains and leaves `summary.json` in the run folder."""
    evaluate: Callable[[Recipe, Path], Result]
    """(recipe, run folder): evaluates the best checkpoint on the validation pairs."""


@dataclass(frozen=True)
class _Entry:
    label: str
    path: Path
    recipe: Recipe


def compare(
    recipes: Sequence[Path],
    seeds: Sequence[int],
    out: Path,
    *,
    match: Match = "epochs",
    overrides: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    steps: Steps | None = None,
) -> Comparison:
    """Train what is missing, evaluate, and write `out/comparison.json`.

    Finished runs of the same recipe and seed under `out` are reused, killed ones resumed. `progress` is told
    of each run. Raises RecipeError for recipes of one name or no seeds, DataError where the runs were not
    evaluated on the same pairs, TrainingError under torchrun, and whatever training raises, with the run
    named.
    """
    steps = steps or real_steps()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise TrainingError(
            "compare is one process: start it without torchrun. For towers that need several GPUs, "
            "train each recipe and seed with torchrun and `unicross train`"
        )
    if not recipes or not seeds or len(set(seeds)) < len(seeds):
        raise RecipeError(
            f"give at least one recipe and different seeds, got {len(recipes)} and {list(seeds)}"
        )
    entries = [_Entry(path.stem, path, load_recipe(path, overrides)) for path in map(Path, recipes)]
    labels = [entry.label for entry in entries]
    if len(set(labels)) < len(labels):
        raise RecipeError(f"recipes need different file names, got {', '.join(labels)}: rename one")
    for entry in entries:
        if entry.recipe.data.split.val is None:
            raise DataError(f"{entry.label} has no validation split: name one, or data.split.val=0.1")
    out.mkdir(parents=True, exist_ok=True)

    at_equal_epochs = [_run(entry, seeds, out, steps, progress) for entry in entries]
    at_equal_compute = at_equal_epochs
    if match == "compute":
        dearest = max(runs.compute for runs in at_equal_epochs)
        at_equal_compute = [
            _run(_lengthened(runs, dearest), seeds, out, steps, progress)
            if runs.compute < (1 - SAME_COMPUTE) * dearest
            else runs
            for runs in at_equal_epochs
        ]
    _check_same_pairs([*at_equal_epochs, *at_equal_compute])
    _check_same_data([*at_equal_epochs, *at_equal_compute])
    comparison = Comparison(
        match=match,
        seeds=tuple(seeds),
        n_items=at_equal_epochs[0].results[0].n_items,
        n_images=at_equal_epochs[0].results[0].n_images,
        n_captions=at_equal_epochs[0].results[0].n_captions,
        rows=tuple(_rows(at_equal_epochs, at_equal_compute, out)),
    )
    comparison.save(out)
    return comparison


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


@dataclass(frozen=True, eq=False)
class _Runs:
    """An entry with its runs done, one a seed."""

    entry: _Entry
    folders: tuple[Path, ...]
    results: tuple[Result, ...]
    summaries: tuple[Summary, ...]

    @property
    def compute(self) -> float:
        return float(np.mean([summary.compute for summary in self.summaries]))

    @property
    def ranks(self) -> Ranks:
        return ranks_of(self.results)


def _run(
    entry: _Entry, seeds: Sequence[int], out: Path, steps: Steps, progress: Callable[[str], None]
) -> _Runs:
    """Train and evaluate what is not there yet."""
    folders, results, summaries = [], [], []
    for seed in seeds:
        recipe = entry.recipe.model_copy(update={"seed": seed})
        folder = run_folder(recipe, entry.path.stem, out)
        name = f"{entry.label}, seed {seed}"
        if RunFolder(folder).is_done:
            progress(f"{name}: finished before, in {folder}")
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
    return _Runs(entry, tuple(folders), tuple(results), tuple(summaries))


def _lengthened(runs: _Runs, target: float) -> _Entry:
    """The recipe with so many more epochs of its last stage that it spends the target compute.

    Whole epochs: 2 % less are taken for equal, and as much as an epoch more may be spent.
    """
    recipe = runs.entry.recipe
    last = recipe.stages[-1]
    per_epoch = float(
        np.mean(
            [
                _last_stage_compute(f, last.epochs) or s.compute / recipe.epochs
                for f, s in zip(runs.folders, runs.summaries, strict=True)
            ]
        )
    )
    more = math.ceil((target * (1 - SAME_COMPUTE) - runs.compute) / per_epoch)
    longer = last.model_copy(update={"epochs": last.epochs + more})
    return _Entry(
        f"{runs.entry.label} (equal compute)",
        runs.entry.path,
        recipe.model_copy(update={"stages": (*recipe.stages[:-1], longer)}),
    )


def _last_stage_compute(folder: Path, epochs: int) -> float | None:
    """Compute of one epoch of the last stage by the run's log; None where the log does not tell."""
    spent = [0.0]
    spent += [event["compute"] for event in RunFolder(folder).events("epoch") if "compute" in event]
    return (spent[-1] - spent[-1 - epochs]) / epochs if len(spent) > epochs else None


def _check_same_pairs(all_runs: Sequence[_Runs]) -> None:
    first = all_runs[0]
    for runs in all_runs:
        for folder, result in zip(runs.folders, runs.results, strict=True):
            other = first.results[0]
            same = result.item_ids == other.item_ids and all(
                np.array_equal(getattr(result, name), getattr(other, name))
                for name in ("image_item", "text_item")
            )
            if not same:
                raise DataError(
                    f"{folder} was evaluated on {result.n_items} items that are not the "
                    f"{other.n_items} of {first.folders[0]}: give all recipes the "
                    "same data.root and data.split.val"
                )


def _check_same_data(all_runs: Sequence[_Runs]) -> None:
    """Raise DataError where runs that name the same data were trained on others."""
    first: dict[str, tuple[Path, str]] = {}
    for runs in all_runs:
        for folder in runs.folders:
            digests = RunFolder(folder).data_digests()
            if digests is None:
                continue
            now = (folder, digests)
            before = first.setdefault(runs.entry.recipe.data.model_dump_json(), now)
            if before[1] != now[1]:
                raise DataError(
                    f"the data changed between {before[0]} and {now[0]}, which name the same ones: delete "
                    "the runs of the old data, and they are trained again"
                )


def _rows(
    at_equal_epochs: Sequence[_Runs], at_equal_compute: Sequence[_Runs], out: Path
) -> Iterator[RecipeRow]:
    """A row for each recipe as it stands, and after it one for the same recipe lengthened, where it was.

    All are set against the first recipe as it stands. Runs that spent the common compute are set against the
    first recipe at that compute too; a recipe that was lengthened spent less when it stood as it is.
    """
    references = list(dict.fromkeys([at_equal_epochs[0], at_equal_compute[0]]))
    for as_it_stands, lengthened in zip(at_equal_epochs, at_equal_compute, strict=True):
        if lengthened is as_it_stands:
            yield _row(as_it_stands, references, out)
        else:
            yield _row(as_it_stands, references[:1], out)
            yield _row(lengthened, references, out)


def _row(runs: _Runs, references: Sequence[_Runs], out: Path) -> RecipeRow:
    recipe = runs.entry.recipe
    owners = owners_of(runs.results[0])
    return RecipeRow(
        label=runs.entry.label,
        recipe=str(runs.entry.path),
        epochs=recipe.epochs,
        runs=tuple(folder.relative_to(out).as_posix() for folder in runs.folders),
        metrics={name: _spread([r.metrics[name] for r in runs.results]) for name in runs.results[0].metrics},
        image_forwards=float(np.mean([s.forwards["image"] for s in runs.summaries])),
        text_forwards=float(np.mean([s.forwards["text"] for s in runs.summaries])),
        compute=runs.compute,
        minutes=float(np.mean([s.minutes for s in runs.summaries])),
        against={
            reference.entry.label: paired_difference(reference.ranks, runs.ranks, owners)
            for reference in references
            if reference is not runs
        },
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)) if len(values) > 1 else None)


def real_steps(
    listener: Callable[[Mapping[str, Any]], None] | None = None, device: str | None = None
) -> Steps:
    """Training and evaluation as they are; `listener` hears training's events (see `training.events`)."""
    from unicross.data.load import read_validation
    from unicross.evaluation import evaluate
    from unicross.model import TwoTower
    from unicross.training import train

    def train_run(recipe: Recipe, folder: Path, resume: bool) -> None:
        train(recipe, folder, resume=resume, listener=listener, device=device)

    def evaluate_run(recipe: Recipe, folder: Path) -> Result:
        return evaluate(TwoTower.load(folder / "best", device), read_validation(recipe.data))

    return Steps(train_run, evaluate_run)
