"""Pseudo-pairs for the image-text loss, from images alone and texts alone (Lee 2013's pseudo-labels).

The model that is being trained says which of them choose each other; they join its batches as pairs until
the next round. Most are wrong by the letter (94 % on Flickr8k with 600 pairs, docs/log.md), and still teach.
"""

from __future__ import annotations

import numpy as np

from unicross.batches import Indices
from unicross.matching import mutual_matches
from unicross.model import TwoTower
from unicross.training.dataset import Dataset, embed_captions, embed_images, mean_captions
from unicross.training.distributed import from_first

MOST = 10_000
"""Images and texts that are matched in a round; of more, each round draws others."""


def pseudo_pairs(
    model: TwoTower, data: Dataset, seed: int
) -> tuple[Indices, dict[str, float], dict[str, int]]:
    """Match what is alone with the model as it is.

    Returns:
        Partners [N], see `Dataset.partner`; figures for the log; forwards spent.
    """
    rng = np.random.default_rng(seed)
    images, texts = (_sample(alone, rng) for alone in (data.images_alone, data.texts_alone))
    captions = np.flatnonzero(np.isin(data.captions.item, texts))
    image = embed_images(model, data, images)  # [I, D]
    text = mean_captions(embed_captions(model, data, captions), data, captions, texts)  # [T, D]
    of_images, of_texts = from_first(lambda: mutual_matches(image, text))
    partner = data.partner.copy()
    partner[images[of_images]] = texts[of_texts]
    figures: dict[str, float] = {"matched": len(of_images), "alone": min(len(images), len(texts))}
    return partner, figures, {"image": len(images), "text": len(captions)}


def _sample(items: Indices, rng: np.random.Generator) -> Indices:
    return items if len(items) <= MOST else np.sort(rng.choice(items, MOST, replace=False))
