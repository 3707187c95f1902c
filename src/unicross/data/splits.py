"""The splits of a recipe's data."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc

from unicross.config import DataConfig
from unicross.data.items import Items
from unicross.data.reading import load_items, set_aside
from unicross.data.rows import Problem
from unicross.errors import DataError


def read_splits(data: DataConfig) -> tuple[Items, Items, list[Problem]]:
    """Training items, validation items (perhaps none) and what was skipped. Raises DataError."""
    val = data.split.val
    train = load_items(data.root, data.split.train, format=data.format, on_error=data.on_error)
    if isinstance(val, str):
        loaded = load_items(data.root, val, format=data.format, on_error=data.on_error)
        problems = list(dict.fromkeys(train.problems + loaded.problems))  # some belong to no split
        return train.items, loaded.items, problems
    if val is None:
        return train.items, train.items[:0], train.problems
    rest, aside = set_aside(train.items, val, seed=0)  # the same for all seeds, so that runs compare
    return rest, aside, train.problems


def read_validation(data: DataConfig) -> Items:
    """The validation items alone. Raises DataError, also where the recipe names none."""
    val = data.split.val
    if isinstance(val, str):
        return load_items(data.root, val, format=data.format, on_error=data.on_error).items
    items = read_splits(data)[1]
    if not items:
        raise DataError("the recipe has no validation split: name one, for instance data.split.val=test")
    return items


def seen_in_training(trained: DataConfig, data: DataConfig, items: Items) -> int:
    """How many of the items, the validation split of `data`, are trained on by `trained`; 0 for other data.

    Splits of other names share nothing (reading checks that), so their training items are not read.
    """
    val, train = data.split.val, trained.split.train
    apart = isinstance(val, str) and train is not None and not {*val.split("+")} & {*train.split("+")}
    if apart or Path(trained.root).resolve() != Path(data.root).resolve():
        return 0
    return int(pc.sum(pc.is_in(items.ids, value_set=read_splits(trained)[0].ids)).as_py() or 0)
