"""Find pictures by words and words by pictures: train, evaluate, index, search and serve two-tower models.

>>> from unicross import TwoTower
>>> model = TwoTower.load("runs/mine")
>>> model.encode_texts(["a dog in the snow"]) @ model.encode_images(["dog.jpg", "cat.jpg"]).T
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unicross.errors import (
    CheckpointError,
    DataError,
    RecipeError,
    StoreError,
    TrainingError,
    UnicrossError,
)

if TYPE_CHECKING:
    from unicross.config import Recipe
    from unicross.data.load import load_items
    from unicross.evaluation import evaluate
    from unicross.model import TwoTower
    from unicross.query import Query
    from unicross.recipe import load_recipe
    from unicross.search import Searcher
    from unicross.store import open_store
    from unicross.training import train

_HOME = {
    "Query": "unicross.query",
    "Recipe": "unicross.config",
    "Searcher": "unicross.search",
    "TwoTower": "unicross.model",
    "evaluate": "unicross.evaluation",
    "load_items": "unicross.data.load",
    "load_recipe": "unicross.recipe",
    "open_store": "unicross.store",
    "train": "unicross.training",
}
"""Where the public names live: they are imported when first used, so that `import unicross` is instant."""

__all__ = [
    "CheckpointError",
    "DataError",
    "Query",
    "Recipe",
    "RecipeError",
    "Searcher",
    "StoreError",
    "TrainingError",
    "TwoTower",
    "UnicrossError",
    "evaluate",
    "load_items",
    "load_recipe",
    "open_store",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _installed_version()
    if name not in _HOME:
        raise AttributeError(f"module 'unicross' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("unicross")
    except PackageNotFoundError:  # imported from a source tree that nobody installed
        return "unknown"
