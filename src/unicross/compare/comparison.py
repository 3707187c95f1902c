"""Training and evaluating what a comparison still lacks, and setting it against the first recipe.

Every recipe is trained with every seed in its own folder, evaluated on the same pairs, and set against the
first recipe by a paired bootstrap over items and seeds. What a recipe begins with, a pretrained pair or a
checkpoint, is evaluated untrained, and each recipe set against it too. With `match="compute"` each cheaper
recipe is trained a second time, its last stage lengthened until it spends what the dearest one spends: both
matchings are in the table. One that lacks less than half an epoch is left as it is. Compute is what the runs
measured: tower forwards weighted by the towers' cost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unicross.compare.intervals import Ranks, owners_of, paired_difference, ranks_of
from unicross.compare.runs import SAME_COMPUTE, Entry, Runs, Steps, finish_all, lengthened, real_steps
from unicross.compare.table import Comparison, Match, RecipeRow, Spread
from unicross.config import Recipe
from unicross.errors import DataError, RecipeError, TrainingError
from unicross.recipe import load_recipe
from unicross.result import Result
from unicross.run import RunFolder


def compare(
    recipes: Sequence[Path],
    seeds: Sequence[int],
    out: Path,
    *,
    match: Match = "epochs",
    overrides: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    steps: Steps | None = None,
    at_once: int = 1,
) -> Comparison:
    """Train what is missing, evaluate, and write `out/comparison.json`.

    Finished runs of the same recipe and seed under `out` are reused, killed ones resumed. `progress` is told
    of each run. `at_once` runs are trained side by side, in processes of their own which share the CPU's
    threads. Raises RecipeError for recipes of one name or no seeds, DataError where the runs were not
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
    entries = [Entry(path.stem, path, load_recipe(path, overrides)) for path in map(Path, recipes)]
    labels = [entry.label for entry in entries]
    if len(set(labels)) < len(labels):
        raise RecipeError(f"recipes need different file names, got {', '.join(labels)}: rename one")
    for entry in entries:
        if entry.recipe.data.split.val is None:
            raise DataError(f"{entry.label} has no validation split: name one, or data.split.val=0.1")
    out.mkdir(parents=True, exist_ok=True)

    at_equal_epochs = finish_all(entries, seeds, out, steps, progress, at_once)
    at_equal_compute = at_equal_epochs
    if match == "compute":
        dearest = max(runs.compute for runs in at_equal_epochs)
        cheaper = [runs for runs in at_equal_epochs if runs.compute < (1 - SAME_COMPUTE) * dearest]
        longer = {runs: as_dear for runs in cheaper if (as_dear := lengthened(runs, dearest)) is not None}
        done = finish_all(list(longer.values()), seeds, out, steps, progress, at_once)
        matched = dict(zip(longer, done, strict=True))
        at_equal_compute = [matched.get(runs, runs) for runs in at_equal_epochs]
    untrained = _untrained(at_equal_epochs, out, steps, progress)
    _check_same_pairs([*at_equal_epochs, *at_equal_compute])
    _check_same_data([*at_equal_epochs, *at_equal_compute])
    comparison = Comparison(
        match=match,
        seeds=tuple(seeds),
        n_items=at_equal_epochs[0].results[0].n_items,
        n_images=at_equal_epochs[0].results[0].n_images,
        n_captions=at_equal_epochs[0].results[0].n_captions,
        rows=tuple(_rows(at_equal_epochs, at_equal_compute, untrained, out)),
        untrained=tuple(start.row for start in untrained),
    )
    comparison.save(out)
    return comparison


@dataclass(frozen=True, eq=False)
class _Start:
    """What recipes begin with, as it was before."""

    row: RecipeRow
    ranks: Ranks


def _untrained(
    all_runs: Sequence[Runs], out: Path, steps: Steps, progress: Callable[[str], None]
) -> list[_Start]:
    """Evaluate each pair or checkpoint that a recipe begins with, unless that was done before."""
    begun = {start: runs for runs in reversed(all_runs) if (start := _start_of(runs.entry.recipe))}
    starts = []
    for source, runs in reversed(begun.items()):
        label = "untrained" if len(begun) == 1 else f"untrained {Path(source).name}"
        key = json.dumps([source, runs.entry.recipe.data.model_dump(mode="json")])
        path = out / f"untrained-{hashlib.sha256(key.encode()).hexdigest()[:8]}.json"
        result = Result.load(path) if path.is_file() else None
        if result is None or not _of_same_pairs(result, runs.results[0]):  # the data changed since
            progress(f"{label}: evaluating {source}")
            result = steps.evaluate_untrained(runs.entry.recipe, source)
            result.save(path)
        looks = RunFolder(runs.folders[0]).events("forgetting")
        elsewhere = {look["data"]: look["rsum"] for look in looks if look["step"] == 0}
        row = RecipeRow(
            label=label,
            recipe=source,
            epochs=0,
            runs=(),
            metrics={name: _spread([value]) for name, value in _metrics(result, elsewhere).items()},
            image_forwards=0,
            text_forwards=0,
            compute=0,
            minutes=0,
            against={},
        )
        starts.append(_Start(row, ranks_of([result])))
    return starts


def _start_of(recipe: Recipe) -> str | None:
    return recipe.train.start_from or recipe.model.pair


def _metrics(result: Result, elsewhere: Mapping[str, float]) -> dict[str, float]:
    return result.metrics | {f"rsum on {name}": value for name, value in elsewhere.items()}


def _check_same_pairs(all_runs: Sequence[Runs]) -> None:
    first = all_runs[0]
    for runs in all_runs:
        for folder, result in zip(runs.folders, runs.results, strict=True):
            other = first.results[0]
            if not _of_same_pairs(result, other):
                raise DataError(
                    f"{folder} was evaluated on {result.n_items} items that are not the "
                    f"{other.n_items} of {first.folders[0]}: give all recipes the "
                    "same data.root and data.split.val"
                )


def _of_same_pairs(one: Result, other: Result) -> bool:
    return one.item_ids == other.item_ids and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("image_item", "text_item")
    )


def _check_same_data(all_runs: Sequence[Runs]) -> None:
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
    at_equal_epochs: Sequence[Runs],
    at_equal_compute: Sequence[Runs],
    untrained: Sequence[_Start],
    out: Path,
) -> Iterator[RecipeRow]:
    """A row for each recipe as it stands, and after it one for the same recipe lengthened, where it was.

    All are set against the first recipe as it stands. Runs that spent the common compute are set against the
    first recipe at that compute too; a recipe that was lengthened spent less when it stood as it is.
    """
    references = list(dict.fromkeys([at_equal_epochs[0], at_equal_compute[0]]))
    for as_it_stands, longer in zip(at_equal_epochs, at_equal_compute, strict=True):
        if longer is as_it_stands:
            yield _row(as_it_stands, references, untrained, out)
        else:
            yield _row(as_it_stands, references[:1], untrained, out)
            yield _row(longer, references, untrained, out)


def _row(runs: Runs, references: Sequence[Runs], untrained: Sequence[_Start], out: Path) -> RecipeRow:
    recipe = runs.entry.recipe
    owners = owners_of(runs.results[0])
    others = {r.entry.label: r.ranks for r in references if r is not runs}
    others |= {start.row.label: start.ranks for start in untrained if start.row.recipe == _start_of(recipe)}
    metrics = [_metrics(r, s.forgetting) for r, s in zip(runs.results, runs.summaries, strict=True)]
    return RecipeRow(
        label=runs.entry.label,
        recipe=str(runs.entry.path),
        epochs=recipe.epochs,
        runs=tuple(folder.relative_to(out).as_posix() for folder in runs.folders),
        metrics={name: _spread([of_run[name] for of_run in metrics]) for name in metrics[0]},
        image_forwards=float(np.mean([s.forwards["image"] for s in runs.summaries])),
        text_forwards=float(np.mean([s.forwards["text"] for s in runs.summaries])),
        compute=runs.compute,
        minutes=float(np.mean([s.minutes for s in runs.summaries])),
        against={label: paired_difference(ranks, runs.ranks, owners) for label, ranks in others.items()},
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)) if len(values) > 1 else None)
