"""Embeddings of a data set's items by the model as it is, each process embedding its share.

Letters: B batch, D the shared space, S side of a picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from unicross.batches import Indices
from unicross.data.tokens import TEXTS_AT_ONCE
from unicross.data.turns import parts_of
from unicross.evaluation import evaluate_embeddings
from unicross.model import TwoTower
from unicross.prefetch import made_ahead, prefetch
from unicross.progress import track
from unicross.result import Result
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object, gather_array, rank_slice


def embed_images(
    model: TwoTower, data: Dataset, images: Indices, *, pooled: bool = False
) -> NDArray[np.float32]:
    """Unit embeddings [len(images), D] of images, seen whole, or the features before the head (`pooled`).

    Each process embeds its share.
    """
    size, at_once = model.config.image_size, model.images_at_once
    own = images[rank_slice(len(images))]

    def squares(start: int) -> NDArray[np.uint8]:
        return _resized(data.pixels[own[start : start + at_once]], size)

    starts = range(0, len(own), at_once)
    started = (model.start_pixels(pixels, pooled=pooled) for pixels in prefetch(squares, starts))
    parts = [vectors() for vectors in track("embedding pictures", made_ahead(started), len(starts))]
    return gather_array(np.concatenate(parts), len(images)) if parts else np.zeros((0, model.dim), np.float32)


def embed_captions(
    model: TwoTower, data: Dataset, captions: Indices, *, pooled: bool = False
) -> NDArray[np.float32]:
    """Unit embeddings [len(captions), D], or features before the head (`pooled`); like lengths together."""
    encode = model.pool_tokens if pooled else model.encode_tokens
    own = captions[rank_slice(len(captions))]
    vectors = np.zeros((0, model.dim), np.float32)
    batches = list(data.captions.batches(own, TEXTS_AT_ONCE))
    for rows in track("embedding texts", batches, len(batches)):
        tokens = data.captions.tokens(own[rows])
        encoded = encode(tokens.ids, tokens.mask)
        if not len(vectors):
            vectors = np.zeros((len(own), encoded.shape[1]), np.float32)
        vectors[rows] = encoded
    return gather_array(vectors, len(captions)) if len(own) else vectors


def embed_item_images(model: TwoTower, data: Dataset, items: Indices) -> tuple[NDArray[np.float32], int]:
    """The normalised mean [len(items), D] of the images of each item, and how many they are."""
    images, owner = parts_of(data.items.first_image, data.items.image_counts, items)
    vectors = embed_images(model, data, images)
    if len(images) == len(items):
        return vectors, len(images)
    return _means(vectors, owner, len(items)), len(images)


def embed_item_captions(model: TwoTower, data: Dataset, items: Indices) -> tuple[NDArray[np.float32], int]:
    """The normalised mean [len(items), D] of the captions of each item, and how many they are."""
    captions, owner = parts_of(data.items.first, data.items.counts, items)
    return _means(embed_captions(model, data, captions), owner, len(items)), len(captions)


def _means(vectors: NDArray[np.float32], owner: Indices, count: int) -> NDArray[np.float32]:
    total = np.zeros((count, vectors.shape[1]), np.float32)
    np.add.at(total, owner, vectors)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def validate(model: TwoTower, data: Dataset) -> Result:
    """Retrieval among the pairs, every caption a query. Raises DataError where there is no pair."""
    pairs = data.pairs
    images, image_item = parts_of(data.items.first_image, data.items.image_counts, pairs)
    captions, text_item = parts_of(data.items.first, data.items.counts, pairs)
    image_vectors, text_vectors = embed_images(model, data, images), embed_captions(model, data, captions)
    languages = data.items.languages
    return broadcast_object(
        lambda: evaluate_embeddings(
            image_vectors,
            text_vectors,
            text_item,
            image_item=image_item,
            item_ids=data.items.select(pairs).ids.to_pylist(),
            numbers=data.captions.number[captions],
            languages=None if languages is None else languages[captions],
        )
    )


def _resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[B, S, S, 3] -> [B, size, size, 3], smoothed."""
    if pixels.shape[1] == size:
        return pixels
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    tensor = torch.nn.functional.interpolate(tensor, (size, size), mode="bilinear", antialias=True)
    return tensor.permute(0, 2, 3, 1).numpy()
