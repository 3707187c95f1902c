"""The unit of data: an image with its captions, and many of them in little memory.

Images without captions and texts without images are items too; they serve the uni-modal losses only.
`Items` keeps columns, not objects: a million items are about 150 MB with their captions, and no picture is
read before it is asked for. Letters: N items, C captions, R pictures of a source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unicross.batches import Indices
from unicross.reading import LARGEST_PICTURE, read_bytes

Selection = Sequence[int] | NDArray[np.integer]
"""Positions of items, in any form that numpy takes."""
Mask = NDArray[np.bool_]


class ImageSource(Protocol):
    """Where the encoded bytes of one image come from (a file, a slice of a tar shard, a Parquet cell)."""

    @property
    def name(self) -> str:
        """What to call the image in messages: its path, or shard and member."""

    def read(self) -> bytes:
        """The encoded bytes (JPEG, PNG, WebP, ...). Raises OSError where they cannot be read."""

    def stamp(self) -> str:
        """Cheap to get, and different once the bytes are: size and time of change. Raises OSError."""


class Pictures(Protocol):
    """The images of a source by their row."""

    def __getitem__(self, row: int) -> ImageSource: ...

    def files(self, rows: Indices) -> Iterable[str]:
        """The files that the images of these rows are read from."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        return read_bytes(self.path, LARGEST_PICTURE)

    def stamp(self) -> str:
        status = self.path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"


class Files:
    """Images that are files of their own, by their paths [R]."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = pa.array((os.fsencode(path) for path in paths), pa.large_binary())

    def __getitem__(self, row: int) -> ImageFile:
        return ImageFile(Path(os.fsdecode(self._paths[row].as_py())))

    def files(self, rows: Indices) -> Iterable[str]:
        return (os.fsdecode(self._paths[int(row)].as_py()) for row in rows)


class Sources(tuple[ImageSource, ...]):
    """Images from anywhere, kept as objects: for few of them."""

    __slots__ = ()

    def files(self, rows: Indices) -> Iterable[str]:
        return (self[int(row)].name for row in rows)


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its captions.

    `image_id` identifies the item within its data set: two views of one item are positives of each other.
    `image` is None for texts only; `captions` is empty for an image only; never both.
    """

    image_id: str
    image: ImageSource | None
    captions: tuple[str, ...] = ()

    @property
    def is_pair(self) -> bool:
        return self.image is not None and bool(self.captions)


class Items(Sequence[Item]):
    """Items as columns; each becomes an `Item` when it is asked for.

    Args:
        ids: `image_id` of each item, Arrow strings [N].
        texts: all captions, item after item, Arrow strings [C].
        counts: captions of each item [N].
        rows: the picture of each item among `pictures` [N]; -1 for none.
        pictures: the images of the source, those of other items too.
    """

    def __init__(self, ids: Any, texts: Any, counts: Indices, rows: Indices, pictures: Pictures) -> None:
        assert len(ids) == len(counts) == len(rows), "columns of different length"
        assert len(texts) == counts.sum(), "captions that belong to no item"
        self.ids, self.texts, self.counts, self.rows, self.pictures = ids, texts, counts, rows, pictures
        self.first: Indices = np.cumsum(counts) - counts
        """The first caption of each item [N]."""

    @classmethod
    def of(cls, items: Sequence[Item]) -> Items:
        """The same items as columns."""
        if isinstance(items, Items):
            return items
        has_image = np.array([item.image is not None for item in items], dtype=bool)
        return cls(
            strings(item.image_id for item in items),
            strings(text for item in items for text in item.captions),
            np.array([len(item.captions) for item in items], dtype=np.int64),
            np.where(has_image, np.cumsum(has_image) - 1, -1),
            Sources(item.image for item in items if item.image is not None),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Items: ...

    def __getitem__(self, index: int | slice) -> Item | Items:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        row, first, count = int(self.rows[index]), int(self.first[index]), int(self.counts[index])
        return Item(
            self.ids[int(index)].as_py(),
            self.pictures[row] if row >= 0 else None,
            tuple(self.texts[first + k].as_py() for k in range(count)),
        )

    @property
    def has_image(self) -> Mask:
        """Which items have a picture [N]."""
        return self.rows >= 0

    @property
    def has_text(self) -> Mask:
        """Which items have a caption [N]."""
        return self.counts > 0

    def select(self, indices: Selection) -> Items:
        """Some of the items, in the order asked for."""
        chosen = np.asarray(indices, np.int64)
        counts = self.counts[chosen]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        texts = self.texts.take(pa.array(np.repeat(self.first[chosen], counts) + within))
        return Items(self.ids.take(pa.array(chosen)), texts, counts, self.rows[chosen], self.pictures)

    def find(self, image_id: str) -> Item | None:
        """The item of this id, or None; looks through all of them."""
        index = pc.index(self.ids, image_id).as_py()
        return None if index < 0 else self[index]

    def digest(self) -> dict[str, str]:
        """What the items are, in short: their number and digests of their ids, captions and pictures.

        Of pictures, the sizes of their files count; when those were written does not, so that a copy of the
        data is the same data.
        """
        pictures = hashlib.sha256(self.has_image.tobytes())
        for path in self.pictures.files(self.rows[self.has_image]):
            try:
                pictures.update(f"{os.path.getsize(path)} ".encode())
            except OSError:
                pictures.update(b"gone ")
        captions = _digest(self.texts)
        captions.update(self.counts.tobytes())
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
