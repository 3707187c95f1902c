"""What a picture is, in few bytes: a digest of its file, a perceptual hash, its colours, its size.

The hash is ImageHash's `phash` (the signs of a picture's 64 lowest frequencies against their median), which
survives another size, another compression and small changes of colour. Letters: P pictures.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unicross.data.decoding import decode
from unicross.data.image_source import ImageSource
from unicross.errors import DataError
from unicross.prefetch import OnProgress

SIDE = 16
"""Of the small picture that is kept for its colours, in pixels."""
DECODED_SIDE = 64
"""A picture is decoded to no less than this; the hash looks at 32 × 32 pixels."""
CHUNK = 256
"""Pictures between two reports of progress."""
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Fingerprints:
    """Of P pictures; those that cannot be read have a `reason`, and zeros elsewhere."""

    digest: NDArray[np.void]
    """[P]: of the encoded bytes."""
    hash: NDArray[np.uint8]
    """[P, 8]: 64 bits."""
    colours: NDArray[np.uint8]
    """[P, 16, 16, 3]"""
    size: NDArray[np.int32]
    """[P, 2]: width and height in pixels; for large JPEGs, of the file, not of what was decoded."""
    reason: tuple[str | None, ...]
    """Why a picture cannot be read; None where it can."""

    @property
    def readable(self) -> NDArray[np.bool_]:
        """[P]"""
        return np.array([reason is None for reason in self.reason], dtype=bool)


def content_digest(data: bytes) -> bytes:
    """What tells the bytes of a picture from others."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def take_fingerprints(pictures: Sequence[ImageSource], on_progress: OnProgress) -> Fingerprints:
    """Read and decode each picture once. Raises DataError where ImageHash is not installed."""
    phash = _phash()
    count = len(pictures)
    digest = np.zeros(count, f"V{DIGEST_BYTES}")
    bits = np.zeros((count, 8), np.uint8)
    colours = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    size = np.zeros((count, 2), np.int32)

    def take(number: int) -> str | None:
        picture = pictures[number]
        try:
            data = picture.read()
            image = decode(data, picture.name, DECODED_SIDE, fast=True)
        except DataError as error:
            return str(error).removeprefix(f"{picture.name}: ")
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        digest[number] = np.void(content_digest(data))
        bits[number] = np.packbits(phash(image).hash.ravel())
        colours[number] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
        size[number] = _size(data, image)
        return None

    reasons: list[str | None] = []
    on_progress(0, count)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, CHUNK):
            reasons += pool.map(take, range(start, min(start + CHUNK, count)))
            on_progress(len(reasons), count)
    return Fingerprints(digest, bits, colours, size, tuple(reasons))


def _phash() -> Any:
    try:
        from imagehash import phash
    except ImportError as error:
        raise DataError(
            "near duplicates are found with ImageHash, which is not installed: pip install 'unicross[check]'"
        ) from error
    return phash


def _size(data: bytes, decoded: Image.Image) -> tuple[int, int]:
    """Width and height that the file says: a JPEG may have been decoded at less."""
    if data[:2] != b"\xff\xd8":
        return decoded.size
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    upright = (width < height) == (decoded.width < decoded.height)
    return (width, height) if upright else (height, width)
