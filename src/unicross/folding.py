"""Hits that stand for others: near-duplicates become one hit with the others inside. H is a number of hits,
N of rows, D the size of a vector.

A grouping is a number for each hit, equal for those that belong together, so that whatever says which hits
belong together (how alike their vectors are, a column with the same value) folds in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from unicross.store.base import Hit, Kind, Row, Store
from unicross.store.filters import Condition, Value

NEAR_SHARE = 0.1
"""Near-duplicates are no farther apart than this share of the distance (1 - cosine) of two random rows."""

NEAR_OF_FEW = 0.95
"""Cosine from which two rows are near-duplicates where too few are stored to tell how far apart they are."""

HIGHEST_NEAR = 0.999
"""A copy's cosine with its original may fall to this by rounding and compression."""

FEWEST, SAMPLE, LOOKED_AT = 50, 1000, 20_000
"""Rows without which the distance is not estimated; that it is estimated on; among which those are drawn."""


def near_in(store: Store, kind: Kind) -> float:
    """Cosine from which two rows of a kind are near-duplicates in this store, by a sample of them.

    Models differ in how near to each other they put all pictures, so the measure is the store's own: a tenth
    of the mean distance of two random rows. Raises StoreError.
    """
    rows = list(islice(store.scan([Condition("kind", "=", kind)]), LOOKED_AT))
    chosen = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
    sample = store.get([rows[int(number)].id for number in np.sort(chosen)])
    vectors = [row.vector for row in sample if row.vector is not None]
    return NEAR_OF_FEW if len(vectors) < FEWEST else near_by_spread(np.stack(vectors))


def near_by_spread(vectors: NDArray[np.float32]) -> float:
    """Cosine from which two of N unit vectors [N, D], a sample of rows, are near-duplicates."""
    n = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)  # [D]
    mean_cosine = (total @ total - n) / (n * (n - 1))  # of all pairs: |sum|^2 has each vector with itself too
    return min(HIGHEST_NEAR, 1 - NEAR_SHARE * (1 - float(mean_cosine)))


def near_duplicates(vectors: NDArray[np.float32], near: float) -> list[int]:
    """A grouping of hits by their unit vectors [H, D], best hit first; `near` is the least cosine.

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
