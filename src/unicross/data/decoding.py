"""Encoded images: the one decoder, and what it refuses.

Pillow decodes; JPEGs are decoded at a reduced scale where they are much larger than asked for, and by
simplejpeg (faster, same pixels within rounding) where it is installed and rounding does not matter. Colour
profiles are ignored. H, W: height and width of a picture in pixels.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unicross.data.bombs import slow_start, slow_to_decode, slow_to_open
from unicross.errors import DataError
from unicross.reading import LARGEST_PICTURE, open_file

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

Fault = Literal["empty", "no image", "too large", "damaged"]

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
NO_HEIF = "a HEIC picture, for which pillow-heif is needed: pip install 'unicross[photos]'"

EMPTY = "the file is empty"


class ImageError(DataError):
    """An encoded image that is refused.

    `fault` says why: it is empty, no image of a kind that is read, of too many pixels, or damaged. `reason`
    is the message without the image's name and without advice.
    """

    def __init__(self, name: str, fault: Fault, reason: str) -> None:
        advice = "make it smaller or remove it" if fault == "too large" else "replace it or remove it"
        super().__init__(f"{name}: {reason}: {advice}")
        self.fault: Fault = fault
        self.reason = reason


@functools.cache
def image_kinds() -> tuple[str, ...]:
    """The kinds of images that are decoded, by Pillow's names, where this Pillow can."""
    Image.init()
    kinds = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")
    return tuple(kind for kind in kinds if kind in Image.OPEN)  # no EPS: it would run Ghostscript


def decode(
    data: bytes,
    name: str,
    at_least: int | None = None,
    *,
    kinds: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
    fast: bool = False,
) -> Image.Image:
    """The picture as it should be seen: upright by its EXIF orientation, RGB, on white where transparent.

    Of an animation, the first frame.

    Args:
        data: the encoded bytes.
        name: what messages call the picture.
        at_least: both sides of a JPEG may come out reduced to no less than this many pixels.
        kinds: Pillow's names of the kinds that are decoded; None: all of `image_kinds()`.
        max_pixels: the largest W * H; Pillow's own limit holds in any case.
        fast: plain JPEGs may be decoded by simplejpeg, whose pixels differ from Pillow's by rounding.

    Raises ImageError, naming `name`, for what is no image, truncated, or too large.
    """
    if fast and (image := _fast_jpeg(data, at_least or 0, max_pixels)) is not None:
        return image
    try:
        _refuse_slow(slow_to_open(data), name)
        with Image.open(io.BytesIO(data), formats=kinds or image_kinds()) as image:
            _refuse_huge(image.width, image.height, name, max_pixels)
            _refuse_slow(slow_to_decode(data, image.width * image.height), name)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            return upright_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        fault, reason = _fault(error, data[:12]) if data else ("empty", EMPTY)
        raise ImageError(name, fault, reason) from error


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


def image_kind(data: bytes) -> str | None:
    """Pillow's name of the kind that the first bytes say; None for what is no image."""
    if slow_to_open(data):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=image_kinds()) as image:
            return image.format
    except Exception:  # as in decode
        return None


def check_header(path: Path) -> str | None:
    """What is wrong with an image file as far as its header tells; None where nothing is. Reads no pixels."""
    start = b""
    try:
        with open_file(path, LARGEST_PICTURE) as file:
            if not (start := file.read(12)):
                return EMPTY
            file.seek(0)
            _refuse_slow(slow_start(file), str(path))
            with Image.open(file, formats=image_kinds()) as image:  # Pillow rewinds
                _refuse_huge(image.width, image.height, str(path), None)
    except FileNotFoundError:
        return "no such file"
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")
    except Exception as error:  # as in decode
        return _fault(error, start)[1]
    return None


def _fast_jpeg(data: bytes, at_least: int, max_pixels: int | None) -> Image.Image | None:
    """A plain JPEG through simplejpeg; None for anything unusual or damaged, which Pillow then judges.

    `at_least` is as in `decode`; 0 for a picture that is not reduced.
    """
    if simplejpeg is None or data[:2] != b"\xff\xd8" or b"Exif\0\0" in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or width * height > _limit(max_pixels):
            return None
        if slow_to_open(data) or slow_to_decode(data, width * height):
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
    values = np.nan_to_num(values, nan=0.0)  # what is no number is black, what is infinite the extreme
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        values /= 257
    else:
        values = (values - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")


def _limit(max_pixels: int | None) -> float:
    """The largest W * H: the smaller one of ours and Pillow's."""
    return min(max_pixels or np.inf, Image.MAX_IMAGE_PIXELS or np.inf)


def _refuse_huge(width: int, height: int, name: str, max_pixels: int | None) -> None:
    limit = _limit(max_pixels)
    if width * height > limit:
        whose = "Pillow's limit" if limit == Image.MAX_IMAGE_PIXELS else "the limit"
        raise ImageError(name, "too large", f"{width}×{height} pixels, above {whose} of {limit:.0f}")


def _refuse_slow(reason: str | None, name: str) -> None:
    if reason is not None:
        raise ImageError(name, "too large", f"it would take too long to decode: {reason}")


def _fault(error: Exception, start: bytes) -> tuple[Fault, str]:
    """What a failure of Pillow's says about an image that begins so, in short and in words."""
    match error:
        case UnidentifiedImageError() if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
            return "no image", NO_HEIF if pillow_heif is None else "a HEIC picture that cannot be read"
        case UnidentifiedImageError():
            return "no image", "not an image, or of a kind that Pillow does not know"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return "too large", f"more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}"
        case MemoryError():
            return "too large", "more memory is needed to decode it than there is"
        case OSError(strerror=str(reason)):
            return "damaged", f"cannot be read ({reason})"
        case _:
            return "damaged", f"not a readable image ({error})"
