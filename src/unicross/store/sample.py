"""The axes of a store that is to be: those of the vectors of some of the rows that it will have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unicross.axes import axes_to_text, principal_axes
from unicross.embed import Encoder
from unicross.errors import CheckpointError, DataError
from unicross.prefetch import OnProgress
from unicross.store.base import Kind, Row, Vector
from unicross.store.catalog import Catalog
from unicross.store.index import embed_rows

SAMPLE = 2000
"""Pictures of whose vectors the axes are computed, and as many texts; more where `PER_AXIS` wants more."""

PER_AXIS = 4
"""Pictures for each axis, at least."""


def sample_axes(model: Encoder, catalog: Catalog, dim: int, *, on_progress: OnProgress) -> str:
    """As text, the `dim` principal axes of pictures that `index` would take, drawn from all over them.

    Without stored texts the pictures' axes suffice: which of them is nearest to a query depends only on the
    part of it that lies in their span. Of texts as many are drawn, which count alike.
    Raises CheckpointError where the model has fewer numbers, DataError where too few pictures can be read.
    """
    if dim > model.dim:
        raise CheckpointError(
            f"the model's vectors have {model.dim} numbers, which cannot be cut to {dim}: give fewer"
        )
    _require_enough(catalog, len(catalog.images), dim)
    drawn = [row for rows in (catalog.images, catalog.texts or {}) for row in _some(rows, dim)]
    rows, _ = embed_rows(model, drawn, on_progress, catalog.pictures)
    vectors: dict[Kind, list[Vector]] = {"image": [], "text": []}
    for row in rows:
        assert row.vector is not None  # it was just embedded
        vectors[row.kind].append(row.vector)
    _require_enough(catalog, len(vectors["image"]), dim)
    return axes_to_text(principal_axes([np.stack(group) for group in vectors.values() if group], dim))


def _require_enough(catalog: Catalog, pictures: int, dim: int) -> None:
    if pictures < PER_AXIS * dim:
        raise DataError(
            f"{catalog.root}: vectors of {dim} numbers take {PER_AXIS * dim:,} pictures that can be read, "
            f"and here are {pictures:,}: leave --dim out, as so few vectors take no room, or give fewer "
            f"numbers"
        )


def _some(rows: Mapping[str, Row], dim: int) -> list[Row]:
    all_rows = list(rows.values())
    order = np.random.default_rng(0).permutation(len(all_rows))
    return [all_rows[number] for number in order[: max(SAMPLE, PER_AXIS * dim)]]
