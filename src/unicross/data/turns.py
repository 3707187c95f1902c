"""Which of its captions, or of its images, an item shows: in turn, and which others beside it.

N: items, B: batch. Parts are captions or images, numbered item after item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unicross.batches import Indices, ranges


@dataclass(frozen=True)
class Turns:
    """The parts of items, each in its turn."""

    first: Indices
    """The first part of each item [N]."""
    counts: Indices
    """How many each has [N]."""
    beginnings: Indices
    """The part with which each begins its turns, by its number in the item [N]."""

    @classmethod
    def draw(cls, counts: Indices, rng: np.random.Generator) -> Turns:
        """Turns that begin with a random part of each item."""
        beginnings = rng.integers(0, 2**31, len(counts)) % np.maximum(counts, 1)
        return cls(np.cumsum(counts) - counts, counts, beginnings)

    def choose(self, items: Indices, turn: int | Indices) -> Indices:
        """One part of each item: over as many turns (epochs) as it has parts, each is shown once. [B]"""
        return self.first[items] + (self.beginnings[items] + turn) % self.counts[items]

    def siblings(
        self,
        chosen: Indices,
        items: Indices,
        count: int,
        rng: np.random.Generator,
        label: Indices | None = None,
    ) -> Indices:
        """Other parts of the same items, in random order. [B], their items [B] -> [count, B]

        They differ as long as there are enough; then they repeat, and an only part is its own sibling. With
        `label`, one of each part, those of another label come first.
        """
        others = self.counts[items] - 1  # [B]
        keys = rng.random((len(items), max(int(others.max(initial=0)), 1)))
        shift_of = np.arange(1, keys.shape[1] + 1)
        if label is not None:
            parts = self._shifted(chosen[:, None], items[:, None], shift_of)
            keys += label[parts] == label[chosen][:, None]
        keys[shift_of > others[:, None]] = 3.0  # no such part: last
        shifts = 1 + keys.argsort(axis=1)  # [B, most others]
        turns = np.arange(count)[:, None] % np.maximum(others, 1)  # [count, B]
        shift = np.minimum(shifts[np.arange(len(items)), turns], others)
        return self._shifted(chosen, items, shift)

    def _shifted(self, parts: Indices, items: Indices, shift: Indices) -> Indices:
        """The parts so far on, beginning again with the first after the last."""
        first = self.first[items]
        return first + (parts - first + shift) % np.maximum(self.counts[items], 1)


@dataclass(frozen=True)
class EvenTurns:
    """As Turns, but every label of an item (its languages, for instance) has its turn as often as another.

    An item with five English captions and one German shows each language every second time.
    """

    groups: Turns
    """Of the groups of each item's parts."""
    members: Turns
    """Of the parts of each group."""
    order: Indices
    """The parts, group after group."""

    @classmethod
    def draw(cls, counts: Indices, label: Indices, rng: np.random.Generator) -> EvenTurns:
        """Turns over parts with a label each, which begin with random ones."""
        item = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((label, item))
        begins = (np.diff(item[order], prepend=-1) != 0) | (np.diff(label[order], prepend=-1) != 0)
        group = np.cumsum(begins) - 1
        sizes = np.bincount(group, minlength=0)
        per_item = np.bincount(item[order][begins], minlength=len(counts))
        return cls(Turns.draw(per_item, rng), Turns.draw(sizes, rng), order)

    def choose(self, items: Indices, turn: int) -> Indices:
        """One part of each item: another label in each turn, and of a label another part each time. [B]"""
        group = self.groups.choose(items, turn)
        return self.order[self.members.choose(group, turn // np.maximum(self.groups.counts[items], 1))]


def parts_of(first: Indices, counts: Indices, items: Indices) -> tuple[Indices, Indices]:
    """All parts of some items, item after item, and the place in `items` of the item of each."""
    return ranges(first[items], counts[items]), np.repeat(np.arange(len(items)), counts[items])
