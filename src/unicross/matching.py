"""Matching pictures without texts with texts without pictures (Lee 2013's pseudo-labels).

Most of these pairs are wrong by the letter (94 % on Flickr8k with 600 pairs, docs/log.md), and still teach.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Indices = NDArray[np.int64]

TEMPERATURE, ITERATIONS = 0.05, 10
"""Of the assignment's softmax, and how often its rows and columns are balanced."""


def mutual_matches(images: NDArray[np.floating], texts: NDArray[np.floating]) -> tuple[Indices, Indices]:
    """Images [N, D] and texts [M, D], all of unit length, that are each other's best match.

    "Best" is by the balanced assignment of Sinkhorn and Knopp (Cuturi 2013): every image has as much to give
    as every other, and every text as much to take, so that a text near to everything (a hub) is not
    everybody's best. The whole N x M matrix is held.

    Returns:
        Positions of the matched images, ascending, and of their texts; both [K].
    """
    log = torch.from_numpy(images.astype(np.float32) @ texts.astype(np.float32).T) / TEMPERATURE  # [N, M]
    for _ in range(ITERATIONS):
        log -= log.logsumexp(dim=1, keepdim=True)
        log -= log.logsumexp(dim=0, keepdim=True)
    text_of, image_of = log.argmax(dim=1).numpy(), log.argmax(dim=0).numpy()
    matched = np.flatnonzero(image_of[text_of] == np.arange(len(images)))
    return matched, text_of[matched]
