"""The run folder: taking a new one, or one to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unicross.config import Recipe
from unicross.data.items import Items
from unicross.errors import CheckpointError, RecipeError
from unicross.files import write_text
from unicross.recipe import dump_recipe, load_recipe

RECIPE, SUMMARY, DATA, EVALUATION = "recipe.yaml", "summary.json", "data.json", "evaluation.json"


CACHE = "cache"
"""Where decoded pictures are kept; they may be there before the run is, from a try that failed."""


def check_claim(run: Path, recipe: Recipe, resume: bool) -> Path:
    """Check that a folder can be that of a new run, or of one to go on with; no file is written yet.

    Raises CheckpointError for a folder that is not empty or, on resuming, no run; RecipeError for a resumed
    run of another recipe.
    """
    if resume:
        last = run / "last" / RECIPE
        before = load_recipe(last) if last.is_file() else kept_recipe(run)
        if before != recipe:
            changed = "; ".join(_differences(before, recipe))
            raise RecipeError(
                f"{run} was begun with another recipe; these differ: {changed}. "
                "Resume without overrides, or begin a new run"
            )
        return run
    try:
        if run.exists() and any(child.name != CACHE for child in run.iterdir()):
            raise CheckpointError(
                f"{run} is not empty: choose another folder with --out, or go on with --resume {run}"
            )
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{run}: cannot be used as a run folder: {error}") from error
    return run


def claim(run: Path, recipe: Recipe, **splits: Items) -> None:
    """Make a folder that of a run, once all else fits: write what its data are, and its recipe."""
    claim_data(run, **splits)
    write_text(run / RECIPE, dump_recipe(recipe))


def kept_recipe(run: Path) -> Recipe:
    """The recipe that a run was begun with. Raises CheckpointError where none was begun."""
    if not (run / RECIPE).is_file():
        raise CheckpointError(f"{run}: nothing to resume: there is no {RECIPE} in it")
    return load_recipe(run / RECIPE)


def claim_data(run: Path, **splits: Items) -> None:
    """Note in a new run what its data are, or check that they are those that it was begun with.

    `splits`: the items by what they are for (`train`, `val`). Raises CheckpointError, saying what differs.
    """
    now = {name: items.digest() for name, items in splits.items()}
    if not (run / DATA).is_file():
        write_text(run / DATA, json.dumps(now, indent=2))
        return
    try:
        before = json.loads((run / DATA).read_text(encoding="utf-8"))
        changed = [
            f"{name} had {before[name]['number']} items and has {digests['number']}"
            if what == "number"
            else f"{name} has other {what}"
            for name, digests in now.items()
            for what, digest in digests.items()
            if before[name][what] != digest
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run / DATA}: cannot be read ({error}): begin a new run") from error
    if changed:
        raise CheckpointError(
            f"{run}: the data are not those that the run was begun with: {'; '.join(changed)}. "
            "Put them back as they were, or begin a new run"
        )


def write_summary(run: Path, summary: Mapping[str, Any]) -> None:
    """Say that the run is done, and what came of it."""
    write_text(run / SUMMARY, json.dumps(summary, indent=2))


def _differences(before: Recipe, after: Recipe) -> list[str]:
    def leaves(node: Any, key: str = "") -> dict[str, Any]:
        if isinstance(node, dict):
            return {k: v for name, child in node.items() for k, v in leaves(child, f"{key}.{name}").items()}
        if isinstance(node, list):
            return {k: v for i, child in enumerate(node) for k, v in leaves(child, f"{key}.{i}").items()}
        return {key.lstrip("."): node}

    old, new = leaves(before.model_dump(mode="json")), leaves(after.model_dump(mode="json"))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed]
