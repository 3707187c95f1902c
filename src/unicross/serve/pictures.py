"""Pictures in and out of the server: uploads checked and decoded, stored files served, thumbnails.

Nothing is taken by its name: uploads and files are what their first bytes say. No file is opened whose real
path, links resolved, is not inside an indexed folder. All decoding happens in other processes
(`decoders.py`), uploads and stored pictures apart, so that neither waits for the other.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unicross.data.decoding import ImageError
from unicross.data.image_source import ImageFile, ImageSource
from unicross.data.lookup import lies_in, picture_in, shard_of
from unicross.serve.decoders import Busy, Decoders
from unicross.serve.protocol import MEDIA_TYPES

GONE = "the picture's file is gone or cannot be read"

CACHE_BYTES = 64_000_000
"""Memory for thumbnails."""
LARGEST_SENT = 50_000_000
"""Bytes of a stored picture that is sent as it is; a larger one goes out as JPEG."""
STORED_PIXELS = Image.MAX_IMAGE_PIXELS or 100_000_000
"""The most that indexing takes."""
NICE = 5
"""Thumbnails leave room for searches."""


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


class Uploads:
    """Decodes pictures that are sent in."""

    def __init__(self, *, max_pixels: int, seconds: float, wait_s: float) -> None:
        """`seconds`: the longest time for one picture; `wait_s`: until its turn comes."""
        self._max_pixels, self._wait_s = max_pixels, wait_s
        self.decoders = Decoders(seconds=seconds, max_pixels=max_pixels)

    def read(self, data: bytes, *, at_least: int | None) -> Image.Image:
        """An uploaded picture, upright and RGB, large ones reduced to no less than `at_least` pixels a side;
        None: not at all.

        Raises PictureError: 415 for what is no picture of a known kind, 413 for what is too large or takes
        too long, 422 for damage, 503 where it would have to wait too long.
        """
        job = {"do": "upload", "at_least": at_least, "max_pixels": self._max_pixels}
        kinds = f" of a kind that is read: {', '.join(MEDIA_TYPES)}"
        answer, pixels = _decoded(self.decoders, job, data, self._wait_s, "the upload", kinds)
        return Image.frombytes("RGB", tuple(answer["size"]), pixels)


def _decoded(
    decoders: Decoders, job: Mapping[str, Any], data: bytes, wait_s: float, name: str, kinds: str
) -> tuple[dict[str, Any], bytes]:
    try:
        return decoders.run(job, data, wait_s=wait_s)
    except ImageError as error:
        raise _refusal(error, name, kinds) from error
    except Busy:
        raise PictureError(503, "other pictures are being decoded: try again in a moment") from None


def _refusal(error: ImageError, name: str, kinds: str) -> PictureError:
    """The decoder's error with the status of HTTP that says it."""
    match error.fault:
        case "empty":
            return PictureError(422, f"{name} is empty: send the bytes of a picture")
        case "no image":
            return PictureError(415, f"{name} is no picture{kinds}")
        case "too large":
            return PictureError(413, f"{name} is too large: {error.reason}")
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
    return real if real.is_file() and lies_in(str(real), roots) else None


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

    def __init__(self, *, seconds: float, wait_s: float) -> None:
        """As of `Uploads`."""
        self._wait_s = wait_s
        self.decoders = Decoders(seconds=seconds, max_pixels=STORED_PIXELS, niceness=NICE)
        self._cache: OrderedDict[str, Served] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def original(self, picture: ImageSource) -> Served:
        """A picture as it is if browsers show its kind, as JPEG if not."""
        data, stamp = _read(picture)
        answer, jpeg = self._run({"do": "original", "again": len(data) > LARGEST_SENT}, data)
        return Served(jpeg or data, MEDIA_TYPES[answer["kind"]], _tag(picture, stamp, 0))

    def thumbnail(self, picture: ImageSource, side: int) -> Served:
        """A JPEG whose shorter side has about `side` pixels, kept in memory for the next time."""
        key = _tag(picture, _stamp(picture), side)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        data, _ = _read(picture)
        _, jpeg = self._run({"do": "thumbnail", "side": side}, data)
        served = Served(jpeg, "image/jpeg", key)
        with self._lock:
            self._bytes += len(served.data) - len(self._cache.get(key, Served(b"", "", "")).data)
            self._cache[key] = served
            while self._bytes > CACHE_BYTES:
                _, oldest = self._cache.popitem(last=False)
                self._bytes -= len(oldest.data)
        return served

    def _run(self, job: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        return _decoded(self.decoders, job, data, self._wait_s, "the picture", " of a kind that is read")


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
