"""The correction of a trained model's hubs, by a sample of its training data."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from unicross.batches import Indices
from unicross.model import TwoTower
from unicross.model.hubness import HubnessCorrection
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object
from unicross.training.embedding import embed_captions, embed_images

MOST = 2048
"""Items of a sample."""


def fit_hubness(model: TwoTower, data: Dataset, rng: np.random.Generator) -> dict[str, int]:
    """Give a model the correction of its hubs. Returns forwards spent."""
    images, texts = (_sampled(counts, rng) for counts in (data.items.image_counts, data.items.counts))
    pictures = _one_of_each(data.items.first_image, data.items.image_counts, images, rng)
    captions = _one_of_each(data.items.first, data.items.counts, texts, rng)
    of_images, of_texts = embed_images(model, data, pictures), embed_captions(model, data, captions)
    tensors = (torch.from_numpy(array) for array in (of_images, of_texts, images, texts))
    model.hubness = broadcast_object(lambda: HubnessCorrection.fitted(*tensors)).to(model.device)
    return {"image": len(images), "text": len(texts)}


def _sampled(counts: NDArray[np.integer], rng: np.random.Generator) -> Indices:
    """Some of the items that have any, ascending."""
    items = np.flatnonzero(counts)
    return np.sort(rng.choice(items, min(MOST, len(items)), replace=False))


def _one_of_each(first: Indices, counts: Indices, items: Indices, rng: np.random.Generator) -> Indices:
    return first[items] + rng.integers(0, counts[items])
