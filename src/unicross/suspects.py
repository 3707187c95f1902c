"""Pairs that look wrong to a model: their caption fits its picture hardly better than any other picture does.

What a wrong pair looks like to the model is known: like a caption beside a picture drawn at random. So each
pair gets the share of random pairs that fit worse than it does. Right pairs have shares near 1, wrong ones
any share alike. From the pairs with a share below a half, which are nearly all wrong, follows how many wrong
ones there are (Storey 2002, "A direct approach to false discovery rates"), and from that how many of those
that fit worst are expected to be wrong.

How well a caption fits is its cosine with the picture, standardised against those of the caption with other
pictures and of the picture with other captions. Where an item has several captions, one that is hardly like
the mean of the others fits worse. Likeness proves nothing, as all captions of an item may be another's.
Letters: N items, C captions, R references, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unicross.batches import ranges
from unicross.data.items import Item, Items
from unicross.embed import Encoder, embed_images
from unicross.errors import DataError
from unicross.progress import track

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

REFERENCES = 1000
"""Other pictures, and other captions, that each pair is standardised against."""
RANDOM_PAIRS = 8
"""Random items that each caption is put beside to learn what wrong pairs look like."""
FEWEST = 16
"""Items, at least, for the statistics to mean something."""
WRONG = 0.5
"""Pairs are listed as long as this share of the list is expected to be wrong."""
MOST_WRONG = 0.8
"""Where a larger share of all pairs looks wrong, the model is too weak to doubt any."""
UNLIKE = 0.25
"""A caption is hardly like the others of its item with less than this share of the likeness that captions of
an item usually have; tuned on Flickr8k with planted errors of both kinds (docs/log.md)."""
BLOCK = 4096
"""Captions, or items, that are compared at a time."""


@dataclass(frozen=True)
class Suspects:
    """How much a model doubts each of C pairs of a caption and its picture."""

    fit: Floats
    """[C]: the share of random pairs that fit worse, in [0, 1]; wrong pairs have any share alike."""
    order: Ints
    """[C]: captions, the most doubtful first."""
    count: int
    """So many of the first are listed: at least half of them are expected to be wrong."""
    wrong: int
    """How many of all pairs are expected to be wrong; too many where the model is weak."""

    @property
    def listed(self) -> Ints:
        """The captions that are listed, the most doubtful first."""
        return self.order[: self.count]


@dataclass(frozen=True)
class ItemSuspects:
    """Suspects among items."""

    item: Ints
    """[C]: the item of each caption that could be looked at."""
    caption: Ints
    """[C]: its position among all captions of the items."""
    found: Suspects


def suspects_of(model: Encoder, items: Sequence[Item]) -> ItemSuspects:
    """Embed the pairs among items and say which the model doubts; pictures that cannot be read are left out.

    Raises DataError where there are too few pairs to compare, or the model cannot tell pairs from random
    ones.
    """
    items = Items.of(items)
    pairs = np.flatnonzero(items.has_image & items.has_text)
    positions = ranges(items.first_image[pairs], items.image_counts[pairs])
    pictures = [items.image(position) for position in positions]
    vectors = list(track("embedding pictures", embed_images(model, pictures), len(pictures)))
    readable = np.array([not isinstance(vector, DataError) for vector in vectors], dtype=bool)
    owner = items.item_of_image[positions[readable]]
    chosen, of_image = np.unique(owner, return_inverse=True)
    if len(chosen) < FEWEST:
        raise DataError(f"doubts need {FEWEST} pairs or more to compare, and there are {len(chosen)}")
    images = np.zeros((len(chosen), model.dim), np.float32)  # of an item with several, their mean
    np.add.at(images, of_image, [vector for vector in vectors if not isinstance(vector, DataError)])
    images /= np.maximum(np.linalg.norm(images, axis=1, keepdims=True), 1e-12)
    counts = items.counts[chosen]
    caption = ranges(items.first[chosen], counts)
    texts = model.encode_texts(items.texts.take(caption).to_pylist())
    found = suspects(images, texts, np.repeat(np.arange(len(chosen)), counts))
    return ItemSuspects(np.repeat(chosen, counts), caption, found)


def suspects(images: Floats, texts: Floats, owner: Ints, *, seed: int = 0) -> Suspects:
    """Which captions a model doubts, by unit vectors of pictures [N, D] and captions [C, D].

    `owner` [C], ascending, is the item of each caption; every item has one. `seed` draws the references.
    Raises DataError where the model tells pairs from random ones so badly that nearly all look wrong.
    """
    alone, share = _worse(images, texts, owner, seed)
    below = int((alone < 0.5).sum())
    wrong = 2 * below
    if wrong > MOST_WRONG * len(texts):
        raise DataError(
            "the model tells these pairs from random ones too badly to doubt any: "
            f"{min(wrong / len(texts), 1):.0%} look wrong to it. Take one trained on data of this kind"
        )
    order = np.argsort(share, kind="stable")
    expected = wrong * share[order] / np.arange(1, len(texts) + 1)  # share of the first k that is wrong
    enough = np.flatnonzero(expected >= WRONG)
    return Suspects(share, order, max(below, int(enough[-1]) + 1 if len(enough) else 0), wrong)


def wrong_pairs(
    images: NDArray[np.floating], texts: NDArray[np.floating], *, seed: int = 0
) -> NDArray[np.bool_]:
    """Which pairs of unit vectors [N, D] and [N, D] are more probably wrong than right -> [N].

    That is where leaving them out takes away as many wrong ones more than right ones as can be. None where
    there are too few to say, or where the model hardly tells pairs from random ones.
    """
    chosen = np.zeros(len(images), bool)
    if len(images) < FEWEST:
        return chosen
    share = _worse(images.astype(np.float32), texts.astype(np.float32), np.arange(len(images)), seed)[0]
    wrong, most = 2 * int((share < 0.5).sum()), int(MOST_WRONG * len(images))
    if wrong > most:
        return chosen
    order = np.argsort(share, kind="stable")
    gain = 2 * wrong * share[order] - np.arange(1, len(order) + 1)  # wrong ones among the first k, less right
    best = int(gain.argmax())
    chosen[order[: min(best + 1, most)]] = gain[best] > 0
    return chosen


def _worse(images: Floats, texts: Floats, owner: Ints, seed: int) -> tuple[Floats, Floats]:
    """[C] twice: the share of random pairs that fit worse than each caption and its picture; the same where
    captions that are hardly like the others of their item fit worse.
    """
    rng = np.random.default_rng(seed)
    fits = _Fits(images, texts, owner, np.sort(rng.permutation(len(images))[:REFERENCES]))
    captions = np.arange(len(texts))
    asking = np.repeat(captions, RANDOM_PAIRS)
    beside = rng.integers(len(images), size=len(asking))
    other = beside != owner[asking]
    random_fits = np.sort(fits(asking[other], beside[other]))
    own = fits(captions, owner)
    alone, among = (
        (np.searchsorted(random_fits, fit) / max(len(random_fits), 1)).astype(np.float32)
        for fit in (own, own + fits.unlike(captions))
    )
    return alone, among


class _Fits:
    """How well captions fit items, their own or others."""

    def __init__(self, images: Floats, texts: Floats, owner: Ints, references: Ints) -> None:
        self._images, self._texts, self._owner = images, texts, owner
        self._counts: Ints = np.bincount(owner, minlength=len(images))  # captions of each item [N]
        self._sums = np.zeros_like(images)
        np.add.at(self._sums, owner, texts)
        first = (np.cumsum(self._counts) - self._counts)[references]
        self._of_text = _moments(texts, images[references], owner, references)
        self._of_image = _moments(images, texts[first], np.arange(len(images)), references)
        self._of_siblings = _moments(texts, self._centres(references, first), owner, references)

    def _centres(self, items: Ints, without: Ints) -> Floats:
        """The mean direction of the captions of items [B] but for one of each [B] -> [B, D]."""
        rest = self._sums[items] - self._texts[without]
        return rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)

    def __call__(self, captions: Ints, items: Ints) -> Floats:
        """How well the pictures of items [B] fit captions [B] -> [B]."""
        parts = []
        for start in range(0, len(captions), BLOCK):
            c, i = captions[start : start + BLOCK], items[start : start + BLOCK]
            cosine = np.einsum("bd,bd->b", self._texts[c], self._images[i])
            parts.append((_standard(cosine, self._of_text, c) + _standard(cosine, self._of_image, i)) / 2)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def unlike(self, captions: Ints) -> Floats:
        """What captions [C] lose where they are hardly like the others of their item -> [C], none above 0."""
        has_others = self._counts[self._owner[captions]] > 1
        lost = np.zeros(len(captions), np.float32)
        asking = captions[has_others]
        if len(asking):
            cosine = np.einsum("bd,bd->b", self._texts[asking], self._centres(self._owner[asking], asking))
            likeness = _standard(cosine, self._of_siblings, asking)
            lost[has_others] = np.minimum(likeness - UNLIKE * np.median(likeness), 0)
        return lost


def _standard(cosine: Floats, moments: tuple[Floats, Floats], at: Ints) -> Floats:
    mean, deviation = moments
    return (cosine - mean[at]) / deviation[at]


def _moments(vectors: Floats, references: Floats, own: Ints, reference_item: Ints) -> tuple[Floats, Floats]:
    """Mean and deviation of the cosines of vectors [B, D] with references [R, D] of other items than own."""
    mean, deviation = np.zeros(len(vectors), np.float32), np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ references.T  # [B, D] @ [D, R] -> [B, R]
        cosines[own[start : start + BLOCK, None] == reference_item[None, :]] = np.nan
        mean[start : start + BLOCK] = np.nanmean(cosines, axis=1)
        deviation[start : start + BLOCK] = np.nanstd(cosines, axis=1)
    return mean, np.maximum(deviation, 1e-6)
