"""Where the encoded bytes of pictures come from: files, and whatever a format keeps them in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from unicross.batches import Indices
from unicross.reading import LARGEST_PICTURE, read_bytes


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
