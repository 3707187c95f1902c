"""What lies beside a model's weights: its recipe, where its data were, how likely its scores are matches.

A model's folder is a run, one of its checkpoints, or a pretrained pair, which has none of these.
"""

from __future__ import annotations

from pathlib import Path

from unicross.calibration import Calibration
from unicross.config import Recipe
from unicross.errors import CheckpointError, RecipeError
from unicross.files import write_text
from unicross.reading import read_text
from unicross.recipe import dump_recipe, load_recipe

RECIPE = "recipe.yaml"
CALIBRATION = "calibration.json"
"""In a best checkpoint: how likely a score is a match, fitted on validation."""
DATA_ROOT = "data_root.txt"
"""Beside every recipe whose `data.root` is a relative path: that path from the root of the file system."""


def recipe_of(folder: Path) -> Recipe:
    """The recipe in a run or checkpoint folder. Raises CheckpointError where it cannot be read."""
    try:
        return load_recipe(folder / RECIPE)
    except RecipeError as error:
        raise CheckpointError(
            f"{error}. This recipe is damaged or of another version of unicross: its model can still be used "
            f"(index, search, serve, train.start_from={folder}); to go on with the run, use that version"
        ) from error


def has_recipe(folder: Path) -> bool:
    """Whether a recipe lies in a folder, as in those of runs and of their checkpoints."""
    return (folder / RECIPE).is_file()


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write a recipe into a run or checkpoint folder, and where its data are if it says that relatively."""
    write_text(folder / RECIPE, dump_recipe(recipe))
    if not Path(recipe.data.root).is_absolute() and "://" not in recipe.data.root:
        write_text(folder / DATA_ROOT, str(Path(recipe.data.root).resolve()))
    else:
        (folder / DATA_ROOT).unlink(missing_ok=True)


def located(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe of a folder with the place where its data were, from whichever folder one looks."""
    try:
        noted = read_text(folder / DATA_ROOT)
    except (OSError, UnicodeDecodeError):
        return recipe
    is_here = str(Path(recipe.data.root).resolve()) == noted
    return recipe if is_here or Path(recipe.data.root).is_absolute() else with_root(recipe, noted)


def with_root(recipe: Recipe, root: str) -> Recipe:
    """The recipe with its data elsewhere."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write into a checkpoint how likely its scores are matches."""
    write_text(folder / CALIBRATION, calibration.model_dump_json(indent=1))


def model_address(path: Path) -> str:
    """How a model is named for who looks for it later, from elsewhere: its whole path, or its hub name."""
    return str(path.resolve()) if path.exists() else str(path)
