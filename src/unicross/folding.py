"""Hits that stand for others: near-duplicates become one hit with the others inside. H is a number of hits.

A grouping is a number for each hit, equal for those that belong together, so that whatever says which hits
belong together (how alike their vectors are, a column with the same value) folds in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unicross.store.base import Hit, Row
from unicross.store.filters import Value

NEAR = 0.95
"""Cosine from which two pictures are taken for near-duplicates."""


def near_duplicates(vectors: NDArray[np.float32], near: float = NEAR) -> list[int]:
    """A grouping of hits by their unit vectors [H, D], best hit first.

    Each joins the best hit before it that leads a group and is alike; else it leads one itself. What the
    first hits are folded to so does not depend on how many follow.
    """
    leaders: list[int] = []
    groups: list[int] = []
    for place, vector in enumerate(vectors):
        alike = vectors[leaders] @ vector >= near  # [leaders, D] @ [D] -> [leaders]
        if alike.any():
            groups.append(leaders[int(alike.argmax())])
        else:
            leaders.append(place)
            groups.append(place)
    return groups


def cell(row: Row, column: str) -> Value | None:
    """A row's value in a column; None where it has none."""
    return {**row.built_in, **row.extra}.get(column)


def same_value(hits: Sequence[Hit], column: str) -> list[int]:
    """A grouping of hits by the value of a column; a hit without one is alone."""
    leaders: dict[object, int] = {}
    groups = []
    for place, hit in enumerate(hits):
        value = cell(hit.row, column)
        groups.append(place if value in (None, "") else leaders.setdefault(value, place))
    return groups


def fold(hits: Sequence[Hit], groups: Sequence[int]) -> list[Hit]:
    """The best hit of each group, with the others of its group, and what was folded into those, in `others`.

    Best first.
    """
    members: dict[int, list[Hit]] = {}
    for hit, group in zip(hits, groups, strict=True):
        members.setdefault(group, []).extend((replace(hit, others=()), *hit.others))
    return [replace(best, others=tuple(others)) for best, *others in members.values()]
