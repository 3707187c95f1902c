"""Pictures as the rest of the house wants them: squares for a tower, thumbnails to be looked at.

S: side of a square in pixels.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unicross.data.decoding import decode, upright_rgb
from unicross.data.image_source import ImageFile, ImageSource
from unicross.data.preparation import Resize
from unicross.errors import DataError
from unicross.prefetch import prefetch

Pixels = NDArray[np.uint8]
AnyImage = ImageSource | Path | str | Image.Image | Pixels
"""An image source, a path, a PIL image, or a uint8 array [H, W, 3]."""

_SUFFIXES = "jpg jpeg jpe jfif png webp gif bmp tif tiff avif jp2 ppm pgm heic heif hif"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""Files whose names end so, in any case, are taken for pictures; those that cannot be decoded (Pillow has no
HEIC by itself) are reported, never passed over."""

_NOT_READ = (
    "jxl jxr wdp svg psd psb eps ico tga xcf exr hdr dds "  # and cameras' raw files:
    "dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw x3f 3fr erf kdc dcr mrw raw rwl iiq"
)
UNREAD_SUFFIXES = frozenset(f".{suffix}" for suffix in _NOT_READ.split())
"""Pictures of kinds that are not read: they are counted where a folder is walked, never taken."""

IMAGES_AT_ONCE = 64
"""Pictures that pass a tower together where nobody says. The same everywhere, since equal batches give equal
vectors (see `TwoTower`)."""
GAP = 2
"""A picture is reduced by cheap means only down to this multiple of the wanted side; the rest is bicubic."""
QUALITY = 82
"""Of the JPEGs that are written to be looked at, in Pillow's scale from 0 to 95."""


def reduced(image: Image.Image, at_least: int) -> Image.Image:
    """A large picture cheaply reduced, both sides to no less than GAP times `at_least` pixels."""
    factor = min(image.size) // (GAP * at_least)
    return image.reduce(factor) if factor > 1 else image


def thumbnail(image: Image.Image, box: tuple[int, int], *, cover: bool = False) -> bytes:
    """A small JPEG of an RGB picture in its proportions; a picture that is small already keeps its size.

    Args:
        image: the picture.
        box: width and height in pixels that the thumbnail fits into.
        cover: the thumbnail covers the box instead: its shorter side fits.
    """
    width, height = image.size
    ratios = box[0] / width, box[1] / height
    scale = max(ratios) if cover else min(ratios)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=GAP)
    return as_jpeg(image)


def as_jpeg(image: Image.Image) -> bytes:
    """An RGB picture as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def to_square(image: Image.Image, side: int, resize: Resize) -> Pixels:
    """An RGB picture as uint8 [S, S, 3], see `Resize`."""
    if not isinstance(resize, str):
        return resize.square(image, side)
    width, height = image.size
    box = None
    if resize == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
    square = image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=GAP)
    return np.asarray(square)


def load_square(source: AnyImage, side: int, resize: Resize) -> Pixels:
    """Any kind of image as uint8 [S, S, 3]. Raises DataError where it cannot be read or decoded."""
    match source:
        case np.ndarray():
            if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
                raise DataError(
                    f"an array image must be uint8 [height, width, 3], got {source.dtype} {source.shape}"
                )
            image = Image.fromarray(source)
        case Image.Image():
            image = upright_rgb(source)
        case str() | Path():
            image = _read(ImageFile(Path(source)), side, resize)
        case _:
            image = _read(source, side, resize)
    return to_square(image, side, resize)


def decode_batches(
    sources: Sequence[AnyImage], side: int, resize: Resize, batch_size: int
) -> Iterator[list[Pixels | DataError]]:
    """Many images in their order, in batches: each as uint8 [S, S, 3], or the error that says why not.

    The next batch is read and decoded in threads while the caller works on this one.
    """

    def decoded(source: AnyImage) -> Pixels | DataError:
        try:
            return load_square(source, side, resize)
        except DataError as error:
            return error

    batches = [sources[start : start + batch_size] for start in range(0, len(sources), batch_size)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # one batch ahead and no more: a batch of squares may take some 100 MB
        yield from prefetch(lambda batch: list(pool.map(decoded, batch)), batches, depth=1)


def _read(source: ImageSource, side: int, resize: Resize) -> Image.Image:
    try:
        data = source.read()
    except OSError as error:
        raise DataError(f"{source.name}: cannot be read: {error.strerror or error}") from error
    at_least = GAP * side if isinstance(resize, str) else None
    return decode(data, source.name, at_least, fast=True)
