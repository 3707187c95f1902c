"""Decoding images: bytes of any common kind in, square RGB uint8 arrays out.

Pillow decodes; JPEGs are decoded at a reduced scale where they are much larger than wanted, and by
simplejpeg (faster, same pixels within rounding) where it is installed. Colour profiles are ignored.
H, W: height and width of a picture; S: side of the square, all in pixels.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unicross.data.items import ImageFile, ImageSource
from unicross.errors import DataError
from unicross.prefetch import prefetch

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Resize = Literal["squash", "crop"]
Pixels = NDArray[np.uint8]
AnyImage = ImageSource | Path | str | Image.Image | Pixels

_KINDS = "jpg jpeg jpe jfif png webp gif bmp tif tiff avif jp2 ppm pgm heic heif"
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())
"""Files whose names end so, in any case, are taken for pictures; those that cannot be decoded (Pillow has no
HEIC by itself) are reported, never passed over."""

EMPTY = "the file is empty"
GAP = 2
"""A picture is reduced by cheap means only down to this multiple of the wanted side; the rest is bicubic."""


@functools.cache
def formats() -> tuple[str, ...]:
    """The kinds of images that are decoded, where this Pillow can. No EPS: it would run Ghostscript."""
    Image.init()
    wanted = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
    return tuple(name for name in wanted if name in Image.OPEN)


def decode(data: bytes, name: str, at_least: int | None = None) -> Image.Image:
    """The picture as it should be seen: upright by its EXIF orientation, RGB, on white where transparent.

    Of an animation, the first frame. `at_least`: both sides of a JPEG may come out reduced to no less than
    this many pixels. Raises DataError, naming `name`, for what is no image, truncated, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            _refuse_huge(image.width, image.height, name)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            return upright_rgb(image)
    except DataError:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise DataError(f"{name}: {_reason(error) if data else EMPTY}: replace it or remove it") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture upright by its EXIF orientation and in RGB, transparent parts on white."""
    image.load()
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def to_square(image: Image.Image, side: int, resize: Resize) -> Pixels:
    """An RGB picture as uint8 [S, S, 3]: all of it (`squash`) or its centre in proportion (`crop`)."""
    width, height = image.size
    box = None
    if resize == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
    square = image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=GAP)
    return np.asarray(square)


def load_square(source: AnyImage, side: int, resize: Resize) -> Pixels:
    """Any kind of image as uint8 [S, S, 3]. Raises DataError where it cannot be read or decoded.

    `source`: an image source, a path, a PIL image, or a uint8 array [H, W, 3].
    """
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
            image = _read(ImageFile(Path(source)), side)
        case _:
            image = _read(source, side)
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


def check_header(path: Path) -> str | None:
    """What is wrong with an image file as far as its header tells; None where nothing is. Reads no pixels."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                return EMPTY
            with Image.open(file, formats=formats()) as image:  # Pillow rewinds
                _refuse_huge(image.width, image.height, str(path))
    except FileNotFoundError:
        return "no such file"
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    except Exception as error:  # as in decode
        return _reason(error)
    return None


def _read(source: ImageSource, side: int) -> Image.Image:
    try:
        data = source.read()
    except OSError as error:
        raise DataError(f"{source.name}: cannot be read: {error.strerror or error}") from error
    return _fast_jpeg(data, GAP * side) or decode(data, source.name, at_least=GAP * side)


def _fast_jpeg(data: bytes, at_least: int) -> Image.Image | None:
    """A plain JPEG through simplejpeg; None for anything unusual or damaged, which Pillow then judges."""
    if simplejpeg is None or data[:2] != b"\xff\xd8" or b"Exif\0\0" in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or width * height > (Image.MAX_IMAGE_PIXELS or np.inf):
            return None
        pixels: Any = simplejpeg.decode_jpeg(
            data, "RGB", min_height=at_least, min_width=at_least, min_factor=2
        )
    except ValueError:
        return None
    return Image.fromarray(pixels)


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # unreadable EXIF says nothing about the orientation; the pixels are fine
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; wider integers and floats stretched from least to greatest value."""
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        values /= 257
    else:
        values = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")


def _refuse_huge(width: int, height: int, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise DataError(
            f"{name}: {width}×{height} pixels, above Pillow's limit of {limit}: make it smaller or remove it"
        )


def _reason(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return "not an image, or of a kind that Pillow does not know"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}"
        case OSError(strerror=str(reason)):
            return f"cannot be read ({reason})"
        case _:
            return f"not a readable image ({error})"
