"""What a folder holds of its runs: recipes, logs, per-query results, the last round's clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unicross.compare.table import COMPARISON, Comparison, RecipeRow, Spread
from unicross.config import Recipe
from unicross.errors import DataError
from unicross.events import Event
from unicross.recipe import dump_recipe
from unicross.result import Result
from unicross.run import RunFolder
from unicross.training.checkpoint import load_clusters
from unicross.training.rounds import Clusters


@dataclass(frozen=True)
class Run:
    """One recipe trained with one seed."""

    folder: Path
    recipe: Recipe
    events: tuple[Event, ...]
    result: Result | None
    """None where the run was not evaluated query by query."""

    def of_kind(self, kind: str, *keys: str) -> list[Event]:
        """Events of a kind that have all of `keys`, in their order."""
        return [e for e in self.events if e["kind"] == kind and all(key in e for key in keys)]

    @property
    def yaml(self) -> str:
        return dump_recipe(self.recipe)

    def clusters(self) -> Clusters | None:
        """Of the last round; None where no stage was clustered."""
        return load_clusters(RunFolder(self.folder).last)


@dataclass(frozen=True)
class Variant:
    """A row of the table with its runs, one a seed."""

    row: RecipeRow
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        return self.row.label

    @property
    def results(self) -> list[Result]:
        return [run.result for run in self.runs if run.result is not None]


@dataclass(frozen=True)
class Contents:
    """All that a report is made of."""

    title: str
    variants: tuple[Variant, ...]
    comparison: Comparison | None
    """None for the report of a single run."""


def collect(folder: Path) -> Contents:
    """Read a comparison's folder or a run folder. Raises DataError where it is neither."""
    if (folder / COMPARISON).is_file():
        comparison = Comparison.load(folder)
        variants = [
            Variant(row, tuple(load_run(folder / run) for run in row.runs)) for row in comparison.rows
        ]
        title = " against ".join(dict.fromkeys(Path(row.recipe).stem for row in reversed(comparison.rows)))
        return Contents(title, tuple(variants), comparison)
    if RunFolder(folder).has_begun:
        run = load_run(folder)
        return Contents(folder.resolve().name, (Variant(_single_row(run), (run,)),), None)
    raise DataError(f"{folder}: neither a run folder nor a comparison's ({COMPARISON})")


def load_run(folder: Path) -> Run:
    """A run folder, finished or not. Raises RecipeError or DataError where its files are damaged."""
    run = RunFolder(folder)
    return Run(
        folder=folder,
        recipe=run.recipe(),
        events=tuple(run.events()),
        result=Result.load(run.evaluation) if run.evaluation.is_file() else None,
    )


def _single_row(run: Run) -> RecipeRow:
    """A run of its own as a row: its evaluation, or else the best one while training."""
    folder = RunFolder(run.folder)
    summary = folder.summary().model_dump() if folder.is_done else {}
    metrics = (
        run.result.metrics
        if run.result
        else summary.get("metrics") or _best_metrics(run.of_kind("eval", "rsum"))
    )
    return RecipeRow(
        label=run.folder.resolve().name,
        recipe=run.folder.resolve().name,
        epochs=run.recipe.epochs,
        runs=(".",),
        metrics={name: Spread(mean=value, sd=None) for name, value in metrics.items()},
        image_forwards=summary.get("forwards", {}).get("image", 0),
        text_forwards=summary.get("forwards", {}).get("text", 0),
        compute=summary.get("compute", 0),
        minutes=summary.get("minutes", 0),
        against={},
    )


def _best_metrics(evaluations: Sequence[Event]) -> dict[str, float]:
    best = max(evaluations, key=lambda event: float(event["rsum"]), default={})
    return {name: value for name, value in best.items() if "/" in name or name == "rsum"}
