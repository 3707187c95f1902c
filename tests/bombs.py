"""Small pictures that take long to decode, as an attacker would make them."""

from __future__ import annotations

import io

from PIL import Image


def scan_bomb(more: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan, a refinement of what is zero, comes `more` times again."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * more + data[-2:]


def segment_bomb(count: int) -> bytes:
    """A JPEG with many empty comments."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"\xff\xfe\x00\x02" * count + data[2:]


def ppm_comment(size: int) -> bytes:
    """A PPM with a comment that Pillow reads a byte at a time."""
    return b"P6\n#" + b"x" * size + b"\n4 4\n255\n" + bytes(48)


def gif_comment(blocks: int) -> bytes:
    """A GIF with a comment that Pillow puts together block by block, copying all of it each time."""
    buffer = io.BytesIO()
    Image.new("P", (4, 4)).save(buffer, "GIF")
    data = buffer.getvalue()
    start = 13 + (3 * 2 ** ((data[10] & 7) + 1) if data[10] & 128 else 0)
    return data[:start] + b"!\xfe" + (b"\xff" + b"c" * 255) * blocks + b"\0" + data[start:]
