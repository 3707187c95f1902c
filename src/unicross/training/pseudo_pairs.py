"""Pseudo-pairs for the image-text loss, from images only and texts only (Lee 2013's pseudo-labels).

The model that is being trained says which of them choose each other; they join its batches as pairs until
the next round. Most are wrong by the letter (94 % on Flickr8k with 600 pairs, docs/log.md), and still teach.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from unicross.batches import Indices
from unicross.model import TwoTower
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object
from unicross.training.embedding import embed_item_captions, embed_item_images

TEMPERATURE, ITERATIONS = 0.05, 10
"""Of the assignment's softmax, and how often its rows and columns are balanced."""
MOST = 10_000
"""Images and texts that are matched in a round; of more, each round draws others."""


def pseudo_pairs(
    model: TwoTower, data: Dataset, rng: np.random.Generator
) -> tuple[Indices, dict[str, float], dict[str, int]]:
    """Match images only with texts only, by the model as it is.

    Returns:
        [N] the item that captions each image (see `Dataset.captioned_by`); figures for the log; forwards.
    """
    images, texts = (_sample(items, rng) for items in (data.images_only, data.texts_only))
    image, image_forwards = embed_item_images(model, data, images)  # [I, D]
    text, text_forwards = embed_item_captions(model, data, texts)  # [T, D]
    of_images, of_texts = broadcast_object(lambda: mutual_matches(image, text))
    captioned_by = data.captioned_by.copy()
    captioned_by[images[of_images]] = texts[of_texts]
    figures: dict[str, float] = {"matched": len(of_images), "unpaired": min(len(images), len(texts))}
    return captioned_by, figures, {"image": image_forwards, "text": text_forwards}


def _sample(items: Indices, rng: np.random.Generator) -> Indices:
    return items if len(items) <= MOST else np.sort(rng.choice(items, MOST, replace=False))


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
