"""How likely a score of a store is a match, fitted on captions that the store itself holds.

For a model that was not validated in training, such as a pretrained pair: a sample of the stored captions
asks for pictures, and each of them has its own picture as the right answer.
"""

from __future__ import annotations

from itertools import islice

import numpy as np

from unicross.calibration import Calibration, fit_calibration
from unicross.store.base import Row, Store, make_id
from unicross.store.filters import Condition

SAMPLE = 500
"""Captions that ask; each is a search of the whole store."""

LOOKED_AT = 20_000
"""Captions among which the sample is drawn."""


def calibrate(store: Store) -> Calibration | None:
    """Fit on a sample of the store's captions; None where too few pictures have one. Raises StoreError."""
    texts = [Condition("kind", "=", "text"), Condition("path", "!=", "")]
    rows = list(islice(store.scan(texts), LOOKED_AT))
    chosen = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
    right, wrong = [], []
    for text in store.get([rows[int(number)].id for number in np.sort(chosen)]):
        scores = _scores(store, text)
        if scores is not None:
            right.append(scores[0])
            wrong.append(scores[1])
    return fit_calibration(np.array(right, np.float64), np.array(wrong, np.float64))


def _scores(store: Store, text: Row) -> tuple[float, float] | None:
    """The cosine of a caption with its own picture, and the highest with another one."""
    own = store.get([make_id("image", text.path)])
    if not own or own[0].vector is None or text.vector is None:
        return None  # its picture could not be read
    hits = store.search(text.vector, 2, where=[Condition("kind", "=", "image")])
    others = [hit.score for hit in hits if hit.row.id != own[0].id]
    return (float(text.vector @ own[0].vector), others[0]) if others else None
