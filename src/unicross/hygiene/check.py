"""Checks data: pictures that are there twice or in two splits, pairs that look wrong, odd captions.

Every finding names an item and says what is odd; those that are to go say why. Of twins the one that stays is
in the split that is held out most (test, then validation, then the others), since a test set is what figures
of others are compared on; within a split the first one stays. Odd captions and small pictures are said and
stay: whether they are wrong is for the user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unicross.data.items import Items
from unicross.data.load import NO_SPLITS, SAME_SPLIT
from unicross.embed import Encoder
from unicross.hygiene.captions import languages, one_word, repeated
from unicross.hygiene.fingerprints import Fingerprints, take_fingerprints
from unicross.hygiene.twins import same_bytes, twins
from unicross.prefetch import OnProgress
from unicross.suspects import suspects_of

Ints = NDArray[np.int64]
Kind = Literal[
    "leak",
    "exact duplicate",
    "near duplicate",
    "suspect pair",
    "unreadable picture",
    "small picture",
    "one-word caption",
    "repeated caption",
    "other language",
]
GOING = ("leak", "exact duplicate", "near duplicate", "suspect pair", "unreadable picture")
"""Kinds of findings that `clean` leaves out."""

SMALL = 64
"""A picture whose shorter side has fewer pixels is small."""

Steps = Callable[[str], OnProgress]
"""Names a step that takes a while and gives what its progress is told to."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd about one item."""

    kind: Kind
    item: int
    """Its position among all items."""
    what: str
    twin: int | None = None
    """The item that it is the twin of, which stays."""
    caption: int | None = None
    """The position of the caption that it is about, among all captions."""
    image: int | None = None
    """The position of the image that it is about, among all images."""

    @property
    def goes(self) -> bool:
        return self.kind in GOING


@dataclass(frozen=True)
class Checked:
    """All items of all splits, and what is odd about them."""

    items: Items
    split: Sequence[str]
    """Of each item."""
    findings: list[Finding]
    languages: Counter[str] = field(default_factory=Counter)
    """Captions by language."""
    sides: tuple[int, int, int] = (0, 0, 0)
    """The least, the median and the largest shorter side of the pictures, in pixels."""
    wrong: int | None = None
    """Captions that are expected to be wrong, by the model; None without one."""

    def of_kind(self, kind: Kind) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind == kind]

    def name(self, item: int) -> str:
        """The item's id, and its split where there are splits."""
        split = self.split[item]
        return f"{self.items.ids[item].as_py()}{'' if split == NO_SPLITS else f' ({split})'}"


def check(splits: Mapping[str, Items], steps: Steps, model: Encoder | None = None) -> Checked:
    """Check the items of some splits, by name; with a model, also which pairs look wrong.

    Raises DataError where a library is not installed, and where the model can doubt nothing.
    """
    items, split = _together(splits)
    pictures = [items.image(position) for position in range(len(items.images))]
    prints = take_fingerprints(pictures, steps("pictures"))
    findings = list(_of_pictures(items, split, items.item_of_image, prints))
    owner = items.item_of_text
    wrong = None
    if model is not None:
        doubts = suspects_of(model, items)
        wrong = doubts.found.wrong
        for k in doubts.found.listed:
            what = f"a random pair fits worse with a probability of {doubts.found.fit[k]:.2f}"
            findings.append(
                Finding("suspect pair", int(doubts.item[k]), what, caption=int(doubts.caption[k]))
            )
    told = languages(items.texts, steps("languages"))
    findings += _of_captions(items, owner, told.other)
    shorter = np.sort(prints.size[prints.readable].min(axis=1))
    sides = (
        (int(shorter[0]), int(shorter[len(shorter) // 2]), int(shorter[-1])) if len(shorter) else (0, 0, 0)
    )
    return Checked(items, split, findings, told.counts, sides, wrong)


def held_out(split: str) -> int:
    """How much a split is held out: 2 for test, 1 for validation, 0 for what is trained on."""
    return 2 if split.startswith("test") else 1 if split in SAME_SPLIT else 0


def _together(splits: Mapping[str, Items]) -> tuple[Items, list[str]]:
    """The items of all splits, which have pictures and kinds of one source, and the split of each."""
    parts = list(splits.values())
    items = Items(
        pa.concat_arrays([part.ids for part in parts]),
        pa.concat_arrays([part.texts for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.image_counts for part in parts]),
        parts[0].pictures,
        parts[0].kinds,
        None if parts[0].kind is None else np.concatenate([part.kind for part in parts]),
    )
    return items, [name for name, part in splits.items() for _ in range(len(part))]


def _of_pictures(
    items: Items, split: Sequence[str], with_image: Ints, prints: Fingerprints
) -> Iterable[Finding]:
    """Findings about images [P], which are those of the items `with_image` [P]."""
    for number, reason in enumerate(prints.reason):
        if reason is not None:
            yield Finding("unreadable picture", int(with_image[number]), reason, image=number)
    for small in map(int, np.flatnonzero(prints.readable & (prints.size.min(axis=1) < SMALL))):
        width, height = prints.size[small]
        yield Finding("small picture", int(with_image[small]), f"{width}×{height} pixels", image=small)
    exact, alike = same_bytes(prints), twins(prints)
    level = np.array([held_out(split[item]) for item in with_image], dtype=np.int64)
    # Group by group, what is held out most at the front, each in the order of the data.
    order = np.lexsort((np.arange(len(alike)), -level, alike))
    order = order[alike[order] >= 0]
    groups = np.split(order, np.flatnonzero(np.diff(alike[order])) + 1) if len(order) else []
    for group in groups:
        stays = int(group[0])
        for number in map(int, group[1:]):
            item, twin = int(with_image[number]), int(with_image[stays])
            same = "the same picture as" if exact[number] == exact[stays] else "nearly the same picture as"
            what = f"{same} {items.ids[twin].as_py()}"
            if level[number] != level[stays]:
                yield Finding("leak", item, f"{what}, which is in {split[twin]}", twin, image=number)
            elif exact[number] == exact[stays]:
                yield Finding("exact duplicate", item, what, twin, image=number)
            else:
                yield Finding("near duplicate", item, what, twin, image=number)


def _of_captions(items: Items, owner: Ints, other: Mapping[int, str]) -> Iterable[Finding]:
    for k in map(int, one_word(items.texts)):
        yield Finding("one-word caption", int(owner[k]), items.texts[k].as_py(), caption=k)
    for k, of_items in repeated(items.texts, owner):
        what = f"{items.texts[k].as_py()!r} is said of {len(of_items)} items"
        yield Finding("repeated caption", int(of_items[0]), what, caption=k)
    for k, language in other.items():
        yield Finding("other language", int(owner[k]), f"{language}: {items.texts[k].as_py()}", caption=k)
