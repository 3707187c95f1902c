"""The items of a run, in the form that training asks for: pixels, tokens, and which item has what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from unicross.batches import Indices
from unicross.config import DataConfig, ModelConfig, Recipe
from unicross.data.items import Items
from unicross.data.load import load_items, set_aside
from unicross.data.pixels import LazyPixels, PixelCache, PixelSource
from unicross.data.records import Problem
from unicross.data.tokens import CaptionTokens
from unicross.errors import DataError
from unicross.evaluation import Result, evaluate_embeddings
from unicross.model import TwoTower
from unicross.prefetch import prefetch
from unicross.training.distributed import from_first, gather_array, share

DECODED = "decoding"
"""What progress is reported of."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the whole."""


@dataclass(frozen=True)
class Dataset:
    """Items with their pictures and captions at hand by item index."""

    items: Items
    pixels: PixelSource
    captions: CaptionTokens

    @cached_property
    def pairs(self) -> Indices:
        return np.flatnonzero(self.items.has_image & self.items.has_text)

    @cached_property
    def partner(self) -> Indices:
        """[N]: the item whose captions go with each item's image: itself where it is a pair, otherwise -1.

        Pseudo-pairs are partners that were found later.
        """
        partner = np.full(len(self.items), -1, dtype=np.int64)
        partner[self.pairs] = self.pairs
        return partner

    @cached_property
    def images_alone(self) -> Indices:
        return np.flatnonzero(self.items.has_image & ~self.items.has_text)

    @cached_property
    def texts_alone(self) -> Indices:
        return np.flatnonzero(~self.items.has_image & self.items.has_text)

    @property
    def has_unpaired(self) -> bool:
        """Whether there are both images alone and texts alone, of which pseudo-pairs could be made."""
        return bool(len(self.images_alone) and len(self.texts_alone))


def read_splits(recipe: Recipe) -> tuple[Items, Items, list[Problem]]:
    """Training items, validation items (perhaps none) and what was skipped. Raises DataError."""
    data, val = recipe.data, recipe.data.split.val
    train = load_items(data.root, data.split.train, format=data.format, on_error=data.on_error)
    if isinstance(val, str):
        loaded = load_items(data.root, val, format=data.format, on_error=data.on_error)
        problems = list(dict.fromkeys(train.problems + loaded.problems))  # some belong to no split
        return train.items, loaded.items, problems
    if val is None:
        return train.items, train.items[:0], train.problems
    rest, aside = set_aside(train.items, val, seed=0)  # the same for all seeds, so that runs compare
    return rest, aside, train.problems


def read_validation(recipe: Recipe) -> Items:
    """The validation items alone. Raises DataError, also where the recipe names none."""
    data, val = recipe.data, recipe.data.split.val
    if isinstance(val, str):
        return load_items(data.root, val, format=data.format, on_error=data.on_error).items
    items = read_splits(recipe)[1]
    if not items:
        raise DataError("the recipe has no validation split: name one, for instance data.split.val=test")
    return items


def seen_in_training(trained: Recipe, recipe: Recipe, items: Items) -> int:
    """How many of the items, those that `recipe` measures on, `trained` trains on; 0 for other data.

    Splits of other names share nothing (reading checks that), so their training items are not read.
    """
    val, train = recipe.data.split.val, trained.data.split.train
    apart = isinstance(val, str) and train is not None and not {*val.split("+")} & {*train.split("+")}
    if apart or Path(trained.data.root).resolve() != Path(recipe.data.root).resolve():
        return 0
    return int(pc.sum(pc.is_in(items.ids, value_set=read_splits(trained)[0].ids)).as_py() or 0)


def make_dataset(
    items: Items,
    model: TwoTower,
    data: DataConfig,
    *,
    side: int,
    where: Path | None,
    progress: Progress,
) -> tuple[Dataset, list[Problem]]:
    """Decode (or find decoded) the pictures and tokenise the captions of items; also what was skipped."""
    resize, on_error = model.config.resize, data.on_error

    def decoded(done: int, total: int) -> None:
        progress(DECODED, done, total)

    pixels: PixelCache | LazyPixels
    if data.cache == "none":
        pixels = LazyPixels.build(items, side, resize, on_error=on_error, progress=decoded)
    else:
        place = where if data.cache == "disk" else None
        pixels = PixelCache.build(items, side, resize, where=place, on_error=on_error, progress=decoded)
    problems = list(pixels.bad)
    if pixels.bad_items:
        kept = np.setdiff1d(np.arange(len(items)), pixels.bad_items)
        items, pixels = items.select(kept), pixels.select(kept)
    return Dataset(items, pixels, CaptionTokens(items, model.tokenizer, data.max_tokens)), problems


def cached_side(data: DataConfig, model: ModelConfig) -> int:
    """Side of the stored training pictures: a little larger than a view, so that crops keep their detail."""
    return data.cache_size or round(model.image_size * 8 / 7)


def embed_images(
    model: TwoTower, data: Dataset, items: Indices, batch_size: int = 128, *, pooled: bool = False
) -> NDArray[np.float32]:
    """Unit embeddings [len(items), D] of the items' pictures, seen whole, or the tower's own (`pooled`).

    Each process embeds its share.
    """
    encode = model.pool_pixels if pooled else model.encode_pixels
    size = model.config.image_size
    own = items[share(len(items))]

    def squares(start: int) -> NDArray[np.uint8]:
        return _resized(data.pixels[own[start : start + batch_size]], size)

    parts = [encode(pixels) for pixels in prefetch(squares, range(0, len(own), batch_size))]
    return gather_array(np.concatenate(parts), len(items)) if parts else np.zeros((0, model.dim), np.float32)


def embed_captions(
    model: TwoTower, data: Dataset, captions: Indices, batch_size: int = 256, *, pooled: bool = False
) -> NDArray[np.float32]:
    """Unit embeddings [len(captions), D], or the tower's own (`pooled`); like lengths together."""
    encode = model.pool_tokens if pooled else model.encode_tokens
    own = captions[share(len(captions))]
    order = np.argsort(data.captions.lengths()[own], kind="stable")
    parts = []
    for start in range(0, len(order), batch_size):
        tokens = data.captions.tokens(own[order[start : start + batch_size]])
        parts.append(encode(tokens.ids, tokens.mask))
    if not parts:
        return np.zeros((0, model.dim), np.float32)
    return gather_array(np.concatenate(parts)[np.argsort(order)], len(captions))


def mean_captions(
    embeddings: NDArray[np.float32], data: Dataset, captions: Indices, items: Indices
) -> NDArray[np.float32]:
    """The normalised mean embedding of each item's captions. [C, D] -> [len(items), D]"""
    position = np.full(len(data.items), -1, dtype=np.int64)
    position[items] = np.arange(len(items))
    total = np.zeros((len(items), embeddings.shape[1]), np.float32)
    np.add.at(total, position[data.captions.item[captions]], embeddings)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def validate(model: TwoTower, data: Dataset) -> Result:
    """Retrieval among the pairs, every caption a query. Raises DataError where there is no pair."""
    pairs = data.pairs
    chosen = np.flatnonzero(np.isin(data.captions.item, pairs))
    images, texts = embed_images(model, data, pairs), embed_captions(model, data, chosen)
    return from_first(
        lambda: evaluate_embeddings(
            images,
            texts,
            np.searchsorted(pairs, data.captions.item[chosen]),
            image_ids=data.items.select(pairs).ids.to_pylist(),
        )
    )


def _resized(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[B, S, S, 3] -> [B, size, size, 3], smoothed."""
    if pixels.shape[1] == size:
        return pixels
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    tensor = torch.nn.functional.interpolate(tensor, (size, size), mode="bilinear", antialias=True)
    return tensor.permute(0, 2, 3, 1).numpy()
