"""The items of a run, in the form that training asks for: pixels, tokens, and which item has what.

N: items, C: captions, L: tokens of a caption.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from unicross.batches import Indices, equal_pairs
from unicross.config import DataConfig
from unicross.data.items import Items
from unicross.data.pixels import LazyPixels, PixelCache, PixelSource
from unicross.data.preparation import PatchCanvas, PictureRules
from unicross.data.records import Problem
from unicross.data.tokens import CaptionTokens
from unicross.data.turns import EvenTurns, Turns
from unicross.model import TwoTower
from unicross.prefetch import OnProgress

MEMORY_SHARE, DISK_SHARE = 1 / 3, 0.9
"""Of what is free, so much may be taken by decoded pictures."""
ASSUMED_MEMORY = 8 * 2**30
"""Bytes; where the system does not say how much is free."""


@dataclass(frozen=True)
class Dataset:
    """Items with their pictures and captions at hand."""

    items: Items
    pixels: PixelSource
    captions: CaptionTokens
    caption_turns: Turns
    even_turns: EvenTurns
    """Of captions, each language of an item as often as another."""
    image_turns: Turns

    @cached_property
    def has_siblings(self) -> bool:
        """Whether an item has several images."""
        return bool((self.items.image_counts > 1).any())

    @cached_property
    def pairs(self) -> Indices:
        return np.flatnonzero(self.items.has_image & self.items.has_text)

    @cached_property
    def images_only(self) -> Indices:
        return np.flatnonzero(self.items.has_image & ~self.items.has_text)

    @cached_property
    def texts_only(self) -> Indices:
        return np.flatnonzero(~self.items.has_image & self.items.has_text)

    def items_saying(self, captions: Indices) -> tuple[Indices, Indices]:
        """Where in some captions [B] stands what an item says too, and that item, pair by pair; an item that
        says it twice occurs twice."""
        numbers = self.captions.number
        at, caption = equal_pairs(numbers[captions], numbers, self._by_number)
        return at, self.captions.item[caption]

    @cached_property
    def _by_number(self) -> Indices:
        """The captions [C] in the order of their numbers."""
        return np.argsort(self.captions.number, kind="stable")

    @property
    def has_unpaired(self) -> bool:
        """Whether there are both images only and texts only, which could be matched."""
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
    """Decode (or find decoded) the pictures and tokenise the captions of items; also what was skipped.

    `data.cache` is as `choose_cache` gives it; `auto` keeps the pictures in memory.
    """
    resize, on_error = model.picture_rules.resize, data.on_error
    pixels: PixelCache | LazyPixels
    if data.cache == "none":
        pixels = LazyPixels.build(items, side, resize, on_error=on_error, progress=on_progress)
    else:
        place = where if data.cache == "disk" else None
        pixels = PixelCache.build(items, side, resize, where=place, on_error=on_error, progress=on_progress)
    problems = list(pixels.bad)
    if pixels.bad_images:
        items, kept = items.without_images(pixels.bad_images)
        pixels = pixels.select(kept)
    captions = CaptionTokens(items, model.tokenizer, model.max_tokens, model.text_rules)
    return turning(items, pixels, captions, rng), problems


def turning(items: Items, pixels: PixelSource, captions: CaptionTokens, rng: np.random.Generator) -> Dataset:
    """A data set whose items begin their turns with random captions and images."""
    return Dataset(
        items,
        pixels,
        captions,
        Turns.draw(items.counts, rng),
        EvenTurns.draw(items.counts, _language(items), rng),
        Turns.draw(items.image_counts, rng),
    )


def _language(items: Items) -> Indices:
    """A number for the language of each caption [C]."""
    if items.languages is None:
        return np.zeros(len(items.texts), np.int64)
    return np.unique(items.languages, return_inverse=True)[1].astype(np.int64)


def choose_cache(
    data: DataConfig, pictures: int, side: int, folder: Path, processes: int
) -> tuple[DataConfig, str | None]:
    """With `data.cache=auto` made one of the others, and a sentence where it is not `memory`.

    `pictures`: how many squares of `side` pixels each process is to keep; `folder`: the run's.
    """
    if data.cache != "auto":
        return data, None
    size = pictures * side * side * 3  # bytes
    memory = available_memory()
    if size * processes <= MEMORY_SHARE * memory:
        return data.model_copy(update={"cache": "memory"}), None
    fits_disk = size <= DISK_SHARE * _free_disk(folder)
    cache = "disk" if fits_disk else "none"
    where = (
        f"kept on the disk in {folder}" if fits_disk else "decoded anew each time, as the disk has no room"
    )
    note = (
        f"{pictures:,} decoded pictures are {size / 2**30:.1f} GiB, more than {MEMORY_SHARE:.0%} of the "
        f"{memory / 2**30:.1f} GiB of memory that are free: they are {where} (data.cache={cache})"
    )
    return data.model_copy(update={"cache": cache}), note


def available_memory() -> int:
    """Bytes of memory that may be taken now: of the machine, and of the container where that is less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # no Linux: half of what there is
        try:
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (AttributeError, ValueError):
            return ASSUMED_MEMORY
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # none, or "max"
        return free
    return min(free, max(limit - used, 0))


def _free_disk(folder: Path) -> int:
    existing = next(
        (parent for parent in (folder, *folder.absolute().parents) if parent.exists()), Path.cwd()
    )
    return shutil.disk_usage(existing).free


def cached_side(data: DataConfig, rules: PictureRules) -> int:
    """Side of the stored training pictures: a little larger than a view, so that crops keep their detail; a
    canvas of patches has no other size than its own."""
    if isinstance(rules.resize, PatchCanvas):
        return rules.side
    return data.cache_size or round(rules.side * 8 / 7)
