"""The items of a run, in the form that training asks for: pixels, tokens, and which item has what.

N: items.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from unicross.batches import Indices
from unicross.config import DataConfig, ModelConfig
from unicross.data.items import Items
from unicross.data.pixels import LazyPixels, PixelCache, PixelSource
from unicross.data.records import Problem
from unicross.data.tokens import CaptionTokens
from unicross.model import TwoTower
from unicross.prefetch import OnProgress


@dataclass(frozen=True)
class Dataset:
    """Items with their pictures and captions at hand by item index."""

    items: Items
    pixels: PixelSource
    captions: CaptionTokens
    beginnings: Indices
    """[N] the caption with which each item begins its turns, by its number in the item."""

    @cached_property
    def pairs(self) -> Indices:
        return np.flatnonzero(self.items.has_image & self.items.has_text)

    @cached_property
    def captioned_by(self) -> Indices:
        """[N]: the item whose captions go with each item's image: itself where it is a pair, otherwise -1.

        A pseudo-pair is an image that is captioned by another item.
        """
        captioned_by = np.full(len(self.items), -1, dtype=np.int64)
        captioned_by[self.pairs] = self.pairs
        return captioned_by

    @cached_property
    def images_only(self) -> Indices:
        return np.flatnonzero(self.items.has_image & ~self.items.has_text)

    @cached_property
    def texts_only(self) -> Indices:
        return np.flatnonzero(~self.items.has_image & self.items.has_text)

    @property
    def has_unpaired(self) -> bool:
        """Whether there are both images only and texts only, of which pseudo-pairs could be made."""
        return bool(len(self.images_only) and len(self.texts_only))


def make_dataset(
    items: Items,
    model: TwoTower,
    data: DataConfig,
    *,
    side: int,
    where: Path | None,
    rng: np.random.Generator,
    on_progress: OnProgress,
) -> tuple[Dataset, list[Problem]]:
    """Decode (or find decoded) the pictures and tokenise the captions of items; also what was skipped."""
    resize, on_error = model.picture_rules.resize, data.on_error
    pixels: PixelCache | LazyPixels
    if data.cache == "none":
        pixels = LazyPixels.build(items, side, resize, on_error=on_error, progress=on_progress)
    else:
        place = where if data.cache == "disk" else None
        pixels = PixelCache.build(items, side, resize, where=place, on_error=on_error, progress=on_progress)
    problems = list(pixels.bad)
    if pixels.bad_items:
        kept = np.setdiff1d(np.arange(len(items)), pixels.bad_items)
        items, pixels = items.select(kept), pixels.select(kept)
    captions = CaptionTokens(items, model.tokenizer, model.max_tokens, model.text_rules)
    return Dataset(items, pixels, captions, captions.draw_beginnings(rng)), problems


def cached_side(data: DataConfig, model: ModelConfig) -> int:
    """Side of the stored training pictures: a little larger than a view, so that crops keep their detail."""
    return data.cache_size or round(model.image_size * 8 / 7)
