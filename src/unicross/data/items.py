"""The unit of data: a thing with its images and its captions, and many of them in little memory.

Items without captions and items without images serve the uni-modal losses only. `Items` keeps columns, not
objects: a million items are about 150 MB with their captions, and no picture is read before it is asked for.
Letters: N items, P images, C captions, R pictures of a source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unicross.batches import Indices, ranges
from unicross.data.image_source import ImageSource, Pictures, Sources

Selection = Sequence[int] | NDArray[np.integer]
"""Positions of items, in any form that numpy takes."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CaptionKind:
    """Which text of an item a caption is: its field (title, tags, ...) and its language, where they are
    known."""

    field: str | None = None
    language: str | None = None
    """A code such as `en`."""

    def __str__(self) -> str:
        return ".".join(part for part in (self.field, self.language) if part is not None)


PLAIN_KIND = CaptionKind()
"""Of captions of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Item:
    """A thing with its images and captions.

    `id` identifies it within its data set: everything of one item is a positive of everything else of it.
    `images` is empty for texts alone, `captions` for images alone; never both. `kinds` has the kind of each
    caption; it is empty where none is known.
    """

    id: str
    images: tuple[ImageSource, ...]
    captions: tuple[str, ...] = ()
    kinds: tuple[CaptionKind, ...] = ()

    @property
    def is_pair(self) -> bool:
        return bool(self.images) and bool(self.captions)


class Items(Sequence[Item]):
    """Items as columns; each becomes an `Item` when it is asked for.

    Args:
        ids: the id of each item, Arrow strings [N].
        texts: all captions, item after item, Arrow strings [C].
        counts: captions of each item [N].
        images: all images, item after item, as rows of `pictures` [P].
        image_counts: images of each item [N].
        pictures: the images of the source, those of other items too.
        kinds: the kinds of captions that there are; none where nothing is known of them.
        kind: which of `kinds` each caption is [C]; None without kinds.
    """

    def __init__(
        self,
        ids: Any,
        texts: Any,
        counts: Indices,
        images: Indices,
        image_counts: Indices,
        pictures: Pictures,
        kinds: tuple[CaptionKind, ...] = (),
        kind: Indices | None = None,
    ) -> None:
        assert len(ids) == len(counts) == len(image_counts), "columns of different length"
        assert len(texts) == counts.sum(), "captions that belong to no item"
        assert len(images) == image_counts.sum(), "images that belong to no item"
        assert (kind is None) == (not kinds), "kinds of no caption, or captions of no kind"
        self.ids, self.texts, self.counts = ids, texts, counts
        self.images, self.image_counts, self.pictures = images, image_counts, pictures
        self.kinds, self.kind = kinds, kind
        self.first: Indices = np.cumsum(counts) - counts
        """The first caption of each item [N]."""
        self.first_image: Indices = np.cumsum(image_counts) - image_counts
        """The first image of each item [N], as a position in `images`."""

    @classmethod
    def of(cls, items: Sequence[Item]) -> Items:
        """The same items as columns."""
        if isinstance(items, Items):
            return items
        numbers: dict[CaptionKind, int] = {}
        for item in items:
            for kind in item.kinds or (PLAIN_KIND,) * len(item.captions):
                numbers.setdefault(kind, len(numbers))
        known = any(kind != PLAIN_KIND for kind in numbers)
        kinds = [numbers[kind] for item in items for kind in item.kinds or (PLAIN_KIND,) * len(item.captions)]
        image_counts = np.array([len(item.images) for item in items], dtype=np.int64)
        return cls(
            strings(item.id for item in items),
            strings(text for item in items for text in item.captions),
            np.array([len(item.captions) for item in items], dtype=np.int64),
            np.arange(image_counts.sum()),
            image_counts,
            Sources(image for item in items for image in item.images),
            tuple(numbers) if known else (),
            np.array(kinds, dtype=np.int64) if known else None,
        )

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Items: ...

    def __getitem__(self, index: int | slice) -> Item | Items:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        captions = range(int(self.first[index]), int(self.first[index]) + int(self.counts[index]))
        start = int(self.first_image[index])
        rows = self.images[start : start + int(self.image_counts[index])]
        return Item(
            self.ids[int(index)].as_py(),
            tuple(self.pictures[int(row)] for row in rows),
            tuple(self.texts[c].as_py() for c in captions),
            () if self.kind is None else tuple(self.kinds[self.kind[c]] for c in captions),
        )

    @property
    def has_image(self) -> Mask:
        """Which items have an image [N]."""
        return self.image_counts > 0

    @property
    def has_text(self) -> Mask:
        """Which items have a caption [N]."""
        return self.counts > 0

    @property
    def item_of_image(self) -> Indices:
        """The item of each image [P]."""
        return np.repeat(np.arange(len(self)), self.image_counts)

    @property
    def item_of_text(self) -> Indices:
        """The item of each caption [C]."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def languages(self) -> NDArray[np.str_] | None:
        """The language of each caption [C], "" where it is not known; None where none is."""
        if self.kind is None or not any(kind.language for kind in self.kinds):
            return None
        return np.array([kind.language or "" for kind in self.kinds])[self.kind]

    @property
    def fields(self) -> NDArray[np.str_] | None:
        """The field of each caption [C], "" where it is not known; None where none is."""
        if self.kind is None or not any(kind.field for kind in self.kinds):
            return None
        return np.array([kind.field or "" for kind in self.kinds])[self.kind]

    @property
    def has_several_kinds(self) -> bool:
        """Whether an item has captions of two kinds: in two languages, or of two fields."""
        if self.kind is None or not len(self.kind):
            return False
        item = np.repeat(np.arange(len(self)), self.counts)
        return bool(((np.diff(item) == 0) & (np.diff(self.kind) != 0)).any())

    def image(self, position: int) -> ImageSource:
        """The image at a position in `images`."""
        return self.pictures[int(self.images[position])]

    def select(self, indices: Selection) -> Items:
        """Some of the items, in the order asked for."""
        chosen = np.asarray(indices, np.int64)
        captions = ranges(self.first[chosen], self.counts[chosen])
        return Items(
            self.ids.take(pa.array(chosen)),
            self.texts.take(pa.array(captions)),
            self.counts[chosen],
            self.images[ranges(self.first_image[chosen], self.image_counts[chosen])],
            self.image_counts[chosen],
            self.pictures,
            self.kinds,
            None if self.kind is None else self.kind[captions],
        )

    def without_images(self, positions: Selection) -> tuple[Items, Indices]:
        """The items without some of their images, and without those that lose all of them so.

        Returns:
            The items that are left; the positions of their images among those of before.
        """
        kept = np.ones(len(self.images), dtype=bool)
        kept[np.asarray(positions, np.int64)] = False
        counts = np.bincount(self.item_of_image[kept], minlength=len(self))
        left = np.flatnonzero((counts > 0) | (self.image_counts == 0))
        fewer = Items(
            self.ids, self.texts, self.counts, self.images[kept], counts, self.pictures, self.kinds, self.kind
        )
        return fewer.select(left), np.flatnonzero(kept)

    def find(self, id: str) -> Item | None:
        """The item of this id, or None; looks through all of them."""
        index = pc.index(self.ids, id).as_py()
        return None if index < 0 else self[index]

    def digest(self) -> dict[str, str]:
        """What the items are, in short: their number and digests of their ids, captions and pictures.

        Of pictures, the sizes of their files count; when those were written does not, so that a copy of the
        data is the same data.
        """
        several = self.image_counts.max(initial=0) > 1
        pictures = hashlib.sha256((self.image_counts if several else self.has_image).tobytes())
        for path in self.pictures.files(self.images):
            try:
                pictures.update(f"{os.path.getsize(path)} ".encode())
            except OSError:
                pictures.update(b"gone ")
        captions = _digest(self.texts)
        captions.update(self.counts.tobytes())
        if self.kind is not None:
            captions.update("".join(f"{kind}\n" for kind in self.kinds).encode() + self.kind.tobytes())
        return {
            "number": str(len(self)),
            "ids": _digest(self.ids).hexdigest(),
            "captions": captions.hexdigest(),
            "pictures": pictures.hexdigest(),
        }


def strings(texts: Iterable[str]) -> Any:
    """Texts as an Arrow column."""
    return pa.array((as_unicode(text) for text in texts), pa.large_string())


def text_numbers(texts: Any) -> NDArray[np.int64]:
    """A number for each text [C], equal for texts that are equal but for case and spaces."""
    plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), r"\s+", " "))
    encoded = plain.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices, dtype=np.int64)


def as_unicode(text: str) -> str:
    """The text with what is no Unicode (file names in other encodings, halves of JSON's pairs) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _digest(column: Any) -> Any:
    """A digest of an Arrow string column that has no nulls."""
    lengths = pc.binary_length(column).to_numpy()
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    digest = hashlib.sha256(lengths.tobytes())
    if len(column) and data is not None:
        digest.update(memoryview(data)[int(bounds[0]) : int(bounds[-1])])
    return digest
