"""The unit of data: an image with its captions.

Images without captions and texts without images are items too; they serve the uni-modal losses only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class ImageSource(Protocol):
    """Where the encoded bytes of one image come from (a file, a slice of a tar shard, a Parquet cell)."""

    @property
    def name(self) -> str:
        """What to call the image in messages: its path, or shard and member."""

    def read(self) -> bytes:
        """The encoded bytes (JPEG, PNG, WebP, ...). Raises OSError where they cannot be read."""

    def stamp(self) -> str:
        """Cheap to get, and different once the bytes are: size and time of change. Raises OSError."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        return self.path.read_bytes()

    def stamp(self) -> str:
        status = self.path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its captions.

    `image_id` identifies the item within its data set: two views of one item are positives of each other.
    `image` is None for texts alone; `captions` is empty for an image alone; never both.
    """

    image_id: str
    image: ImageSource | None
    captions: tuple[str, ...] = ()

    @property
    def is_pair(self) -> bool:
        return self.image is not None and bool(self.captions)


Items = Sequence[Item]
