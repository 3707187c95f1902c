"""Pictures in and out of the server: uploads checked and decoded, stored files served, thumbnails.

Nothing is taken by its name: uploads and files are what their first bytes say. No file is opened whose real
path, links resolved, is not inside an indexed folder.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unicross.data.images import ImageError, as_jpeg, decode, image_kind, reduced, thumbnail
from unicross.data.items import ImageFile, ImageSource
from unicross.data.lookup import picture_in, shard_of

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "PPM": "image/x-portable-pixmap",
}
"""What uploads may be, by Pillow's name; every other decoder stays out of their reach. Stored pictures may be
whatever was indexed."""

SHOWN = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP")
"""What browsers show; other files go out as JPEG."""

_DECODERS = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decoder")
"""Few threads decode, so that few large pictures are in memory at one time, and in few of malloc's arenas."""

GONE = "the picture's file is gone or cannot be read"

CACHE_BYTES = 64_000_000
"""Memory for thumbnails."""


class PictureError(Exception):
    """A picture that is refused, with the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Served:
    """Bytes to send, their type, and a tag that changes with them."""

    data: bytes
    media_type: str
    tag: str


def read_upload(data: bytes, *, max_pixels: int, at_least: int) -> Image.Image:
    """An uploaded picture, upright and RGB, large ones reduced to no less than `at_least` pixels a side.

    Raises PictureError: 415 for what is no picture of a known kind, 413 for too many pixels, 422 for damage.
    """

    def work() -> Image.Image:
        image = decode(data, "the upload", at_least, kinds=tuple(MEDIA_TYPES), max_pixels=max_pixels)
        return reduced(image, at_least)

    try:
        return _DECODERS.submit(work).result()
    except ImageError as error:
        raise _refusal(error, "the upload", f" of a kind that is read: {', '.join(MEDIA_TYPES)}") from error


def _stored(data: bytes, box: tuple[int, int] | None) -> bytes:
    """A picture that was indexed, of any kind and size that indexing takes, as a JPEG.

    With a `box`, a thumbnail that covers so many pixels; else the whole picture.
    """

    def work() -> bytes:
        image = decode(data, "the picture", None if box is None else max(box))
        return as_jpeg(image) if box is None else thumbnail(image, box, cover=True)

    try:
        return _DECODERS.submit(work).result()
    except ImageError as error:
        raise _refusal(error, "the picture", " of a kind that is read") from error


def _refusal(error: ImageError, name: str, kinds: str) -> PictureError:
    """The decoder's error with the status of HTTP that says it."""
    match error.fault:
        case "empty":
            return PictureError(422, f"{name} is empty: send the bytes of a picture")
        case "no image":
            return PictureError(415, f"{name} is no picture{kinds}")
        case "too large":
            return PictureError(413, f"{name} has too many pixels: {error.reason}")
        case "damaged":
            return PictureError(422, f"{name} is damaged and cannot be read")


def inside(path: str, roots: Sequence[str]) -> Path | None:
    """The real path of a stored picture if it lies in an indexed folder, else None."""
    if not path or "\0" in path:
        return None
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    ok = real.is_file() and any(real.is_relative_to(Path(root).resolve()) for root in roots)
    return real if ok else None


def stored_picture(path: str, roots: Sequence[str]) -> ImageSource | None:
    """The picture of a stored path, a file or in a shard, if it lies in an indexed folder; else None."""
    if (real := inside(path, roots)) is not None:
        return ImageFile(real)
    shard = shard_of(path) if path and "\0" not in path else None
    return picture_in(shard, path) if shard is not None and inside(str(shard), roots) else None


def relative(path: str, roots: Sequence[str]) -> str:
    """A stored path without its root, for showing; the bare name where it is in none."""
    for root in sorted(roots, key=len, reverse=True):
        if path and Path(path).is_relative_to(root):
            return Path(path).relative_to(root).as_posix()
    return Path(path).name


class PictureFiles:
    """Stored pictures as they are sent out. Raises PictureError for what cannot be."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, Served] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def original(self, picture: ImageSource) -> Served:
        """A picture as it is if browsers show its kind, as JPEG if not."""
        data, stamp = _read(picture)
        kind = image_kind(data)
        if kind is None:
            raise PictureError(415, "the file is no longer a picture")
        tag = _tag(picture, stamp, 0)
        if kind in SHOWN:
            return Served(data, MEDIA_TYPES[kind], tag)
        return Served(_stored(data, None), "image/jpeg", tag)

    def thumbnail(self, picture: ImageSource, side: int) -> Served:
        """A JPEG whose shorter side has about `side` pixels, kept in memory for the next time."""
        key = _tag(picture, _stamp(picture), side)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        data, _ = _read(picture)
        served = Served(_stored(data, (side, side)), "image/jpeg", key)
        with self._lock:
            self._bytes += len(served.data) - len(self._cache.get(key, Served(b"", "", "")).data)
            self._cache[key] = served
            while self._bytes > CACHE_BYTES:
                _, oldest = self._cache.popitem(last=False)
                self._bytes -= len(oldest.data)
        return served


def _read(picture: ImageSource) -> tuple[bytes, str]:
    """The encoded bytes, and what the picture's stamp was before they were read."""
    stamp = _stamp(picture)
    try:
        return picture.read(), stamp
    except OSError:
        raise PictureError(404, GONE) from None


def _stamp(picture: ImageSource) -> str:
    try:
        return picture.stamp()
    except OSError:
        raise PictureError(404, GONE) from None


def _tag(picture: ImageSource, stamp: str, side: int) -> str:
    return hashlib.blake2b(repr((picture.name, stamp, side)).encode(), digest_size=12).hexdigest()
