"""What the shell completes besides names of files: shipped recipes, run folders, and the keys of data."""

from __future__ import annotations

from pathlib import Path

RUNS = ("runs/*/recipe.yaml", "runs/*/*/recipe.yaml", "demo/runs/*/recipe.yaml")
"""Where runs lie unless told otherwise, of `train`, `compare` and `demo`."""


def recipes(begun: str) -> list[str]:
    """Names of shipped recipes that begin so."""
    from unicross.recipe import SHIPPED

    return [name for name in sorted(path.stem for path in SHIPPED.glob("*.yaml")) if name.startswith(begun)]


def runs(begun: str) -> list[str]:
    """Run folders below the current one that begin so."""
    found = sorted(str(path.parent) for pattern in RUNS for path in Path().glob(pattern))
    return [folder for folder in found if folder.startswith(begun)]
