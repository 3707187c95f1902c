"""From pictures to vectors: decoded ahead in threads, embedded in batches.

Nothing here knows a store. A picture that cannot be read gives its error and does not stop the others.
N is a number of pictures, S the side of the model's square in pixels, D the vector's size.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unicross.axes import axes_from_text
from unicross.data.images import (
    IMAGE_SUFFIXES,
    IMAGES_AT_ONCE,
    UNREAD_SUFFIXES,
    AnyImage,
    Pixels,
    decode_batches,
)
from unicross.data.preparation import PictureRules
from unicross.data.walk import walk
from unicross.errors import NOT_FINITE, CheckpointError, DataError
from unicross.prefetch import made_ahead
from unicross.reading import LARGEST_PICTURE, why_not

Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """What searching and indexing need of a model; `TwoTower` is one."""

    @property
    def dim(self) -> int: ...

    @property
    def picture_rules(self) -> PictureRules: ...

    def fingerprint(self) -> str: ...

    def encode_pixels(self, pixels: Pixels, /) -> Vectors:
        """uint8 [N, S, S, 3] -> float32 [N, D], rows of length 1."""

    def encode_texts(self, texts: Sequence[str], /) -> Vectors:
        """N texts -> float32 [N, D], rows of length 1."""


@runtime_checkable
class StartingEncoder(Encoder, Protocol):
    """An encoder that can begin with pictures and be asked for their vectors later; `TwoTower` is one."""

    @property
    def images_at_once(self) -> int:
        """Pictures that it best takes together."""

    def start_pixels(self, pixels: Pixels, /) -> Callable[[], Vectors]:
        """Begin `encode_pixels`; a call of what is returned gives the vectors."""


@dataclass(frozen=True)
class Shortened:
    """An encoder with the vectors of another in fewer axes, made to length 1 again."""

    inner: Encoder
    axes: Vectors
    """Orthonormal columns [W, D], W being the size of the inner vectors."""

    @property
    def dim(self) -> int:
        return self.axes.shape[1]

    @property
    def picture_rules(self) -> PictureRules:
        return self.inner.picture_rules

    def fingerprint(self) -> str:
        """Other axes make other vectors, so it has a digest of them."""
        digest = hashlib.blake2b(self.axes.tobytes(), digest_size=4).hexdigest()
        return f"{self.inner.fingerprint()}:{self.dim}:{digest}"

    @property
    def images_at_once(self) -> int:
        return _at_once(self.inner)

    def encode_pixels(self, pixels: Pixels, /) -> Vectors:
        return self._cut(self.inner.encode_pixels(pixels))

    def start_pixels(self, pixels: Pixels, /) -> Callable[[], Vectors]:
        vectors = _start(self.inner, pixels)
        return lambda: self._cut(vectors())

    def encode_texts(self, texts: Sequence[str], /) -> Vectors:
        return self._cut(self.inner.encode_texts(texts))

    def _cut(self, vectors: Vectors) -> Vectors:
        short = vectors @ self.axes  # [N, W] @ [W, D] -> [N, D]
        lengths = np.linalg.norm(short, axis=1, keepdims=True)
        return (short / np.maximum(lengths, 1e-12)).astype(np.float32)


def shortened(model: Encoder, dim: int, axes: str) -> Encoder:
    """The encoder with vectors in `dim` axes, which a store keeps as text; the encoder itself if there are
    none."""
    return Shortened(model, axes_from_text(axes, dim)) if axes else model


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A picture file as the walk saw it."""

    path: Path
    size: int
    mtime: float
    album: str
    """Its folder relative to the walked one; the walked one's own name at the top."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be taken, and why."""

    path: str
    reason: str


def find_pictures(folder: Path) -> tuple[list[FoundFile], list[Failure]]:
    """All pictures under a folder, sorted by path, and what could not be looked at.

    Follows links, each real folder once, so loops end; leaves hidden files and folders out. Raises
    DataError where `folder` is no readable folder.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder that holds the pictures")
    files: list[FoundFile] = []
    failures: list[Failure] = []
    not_read: Counter[str] = Counter()

    def unreadable(path: str, error: OSError) -> None:
        reason = f"the folder cannot be read: {error.strerror}"
        if path == str(root):
            raise DataError(f"{folder}: {reason}") from error
        failures.append(Failure(_printable(path), reason))

    for entry in walk(root, unreadable):
        suffix = Path(entry.name).suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            not_read.update([suffix] if suffix in UNREAD_SUFFIXES else [])
            continue
        match _look(entry, root):
            case FoundFile() as file:
                files.append(file)
            case failure:
                failures.append(failure)
    files.sort(key=lambda file: file.path)
    for suffix, count in not_read.items():
        reason = f"{count} of a kind of picture that is not read: save as JPEG"
        failures.append(Failure(f"{root}/*{suffix}", reason))
    return files, failures


def _look(entry: os.DirEntry[str], root: Path) -> FoundFile | Failure:
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        return Failure(_printable(entry.path), "the name is not valid UTF-8: rename it")
    try:
        status = entry.stat()
    except OSError as error:  # a link to nowhere, or a link to itself
        return Failure(entry.path, f"cannot be read: {error.strerror}")
    if reason := why_not(status, LARGEST_PICTURE):
        return Failure(entry.path, reason)
    path = Path(entry.path)
    album = path.parent.relative_to(root).as_posix() if path.parent != root else root.name
    return FoundFile(path, status.st_size, status.st_mtime, album)


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def embed_images(
    model: Encoder, images: Sequence[AnyImage], batch_size: int | None = None
) -> Iterator[NDArray[np.float32] | DataError]:
    """Each picture's vector float32 [D], in order, or the error that says why there is none.

    The next batch is read and decoded in threads while the model works on this one, and a model on a GPU has
    its next batch before the vectors of this one are asked for. `batch_size` None: as suits the model.
    """
    rules = model.picture_rules

    def started() -> Iterator[tuple[list[Pixels | DataError], Callable[[], Vectors]]]:
        for batch in decode_batches(images, rules.side, rules.resize, batch_size or _at_once(model)):
            squares = [square for square in batch if not isinstance(square, DataError)]
            yield batch, _start(model, np.stack(squares)) if squares else _nothing

    for batch, found in made_ahead(started()):
        vectors = iter(finite(found()))
        for square in batch:
            yield square if isinstance(square, DataError) else next(vectors)


def _at_once(model: Encoder) -> int:
    return model.images_at_once if isinstance(model, StartingEncoder) else IMAGES_AT_ONCE


def _start(model: Encoder, pixels: Pixels) -> Callable[[], Vectors]:
    if isinstance(model, StartingEncoder):
        return model.start_pixels(pixels)
    vectors = model.encode_pixels(pixels)
    return lambda: vectors


def _nothing() -> Vectors:
    return np.zeros((0, 0), np.float32)


def finite(vectors: Vectors) -> Vectors:
    """The vectors [N, D]. Raises CheckpointError where one is not finite: nothing is near to it, or all
    is."""
    if not np.isfinite(vectors).all():
        raise CheckpointError(NOT_FINITE)
    return vectors
