"""What the server and its decoding processes say to each other, and which pictures they speak of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

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

LONGEST_LINE = 10_000


def send(stream: BinaryIO, what: Mapping[str, Any], body: bytes) -> None:
    """Write a line of JSON and the bytes that belong to it. Raises OSError."""
    stream.write(json.dumps({**what, "bytes": len(body)}).encode() + b"\n")
    stream.write(body)
    stream.flush()


def receive(stream: BinaryIO, most: int) -> tuple[dict[str, Any], bytes] | None:
    """Read what `send` wrote, with at most `most` bytes; None where the stream ends.

    Raises ValueError, KeyError and TypeError for anything else.
    """
    line = stream.readline(LONGEST_LINE)
    if not line:
        return None
    what = json.loads(line)
    size = int(what["bytes"])
    if not 0 <= size <= most:
        raise ValueError(f"{size} bytes where at most {most} are expected")
    body = stream.read(size)
    return (what, body) if len(body) == size else None
