"""Small files that take hours to decode, known by their bytes before a decoder sees them.

Number of pixels and memory are the decoder's own matter (see `images.py`); here it is time. A progressive
JPEG may pass over all of its pixels again and again, a scan in eight bytes. Pillow reads comments and plain
text of PPM, and comments of GIF, a piece at a time.
"""

from __future__ import annotations

import re
from typing import BinaryIO

MOST_SCANS = 100
"""Of a JPEG; programs write about ten. The number that libtiff takes."""
MOST_SCANNED = 2_000_000_000
"""Pixels of a JPEG in all of its scans together: ten scans of the largest picture that is decoded are half of
that, and take some seconds."""
MOST_SEGMENTS = 10_000
"""Of a JPEG: tables, profiles, previews; programs write up to some hundred."""
LONGEST_HEADER = 4096
"""Bytes of a PPM up to its pixels, comments included."""
MOST_PLAIN = 4_000_000
"""Bytes of a PPM whose pixels are written as text."""
MOST_COMMENTS = 1_000_000
"""Bytes of the comments of a GIF."""

SCAN, END = 0xDA, 0xD9
_PPM = re.compile(rb"P[0-7fFy][A-Za-z]{0,6}[\s#]")
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PPM_HEADER = re.compile(
    rb"P(?:[14]" + 2 * (_GAP + rb"\d+") + rb"|[^\s#]+" + 3 * (_GAP + rb"[\d.+-]+") + rb")\s"
)
"""Width, height and, but for bitmaps, depth, with comments anywhere between."""
_MARK = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")
"""A mark that is followed by a segment, or ends the picture: none of those within a scan (00, D0-D7)."""


def slow_start(file: BinaryIO) -> str | None:
    """Why the picture in a file would take too long to open as far as its beginning tells, but for GIFs,
    whose comments may lie anywhere; the file is read from where it stands."""
    start = file.read(LONGEST_HEADER)
    return slow_to_open(start + (file.read() if start[:4] == b"GIF8" else b""))


def slow_to_open(data: bytes) -> str | None:
    """Why a picture would take too long to open; None for all others.

    Of a PPM the first `LONGEST_HEADER` bytes do.
    """
    if data[:2] == b"\xff\xd8":
        scans, segments = count_scans(data)
        if segments > MOST_SEGMENTS:
            return f"more than {MOST_SEGMENTS} segments"
        if scans > MOST_SCANS:
            return f"more than {MOST_SCANS} scans, where ten are usual"
    elif data[:4] == b"GIF8" and (size := _gif_comments(data)) > MOST_COMMENTS:
        return f"a comment of {size} bytes, above the limit of {MOST_COMMENTS}"
    elif _PPM.match(data) and len(data) >= LONGEST_HEADER and not _PPM_HEADER.match(data[:LONGEST_HEADER]):
        return f"comments of more than {LONGEST_HEADER} bytes"
    return None


def slow_to_decode(data: bytes, pixels: int) -> str | None:
    """Why a picture of so many `pixels` would take too long to decode; None for all others."""
    if data[:2] == b"\xff\xd8" and pixels > MOST_SCANNED // MOST_SCANS:
        scans, _ = count_scans(data)
        if scans * pixels > MOST_SCANNED:
            return f"{scans} scans of {pixels} pixels, where ten scans are usual"
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > MOST_PLAIN:
        return f"{len(data)} bytes of numbers written as text, above the limit of {MOST_PLAIN}"
    return None


def count_scans(data: bytes) -> tuple[int, int]:
    """Scans and segments of a JPEG up to its end mark, as libjpeg walks it; neither is counted far beyond its
    limit."""
    scans = segments = 0
    position = 2
    while scans <= MOST_SCANS and segments <= MOST_SEGMENTS and (mark := _MARK.search(data, position)):
        kind, position = mark[1][0], mark.end()
        if kind == END:
            break
        segments += 1
        position += int.from_bytes(data[position : position + 2], "big")
        if kind == SCAN:
            scans += 1
            if data.find(b"\xff\xda", position) < 0:  # much faster, and nearly always so
                break
    return scans, segments


def _gif_comments(data: bytes) -> int:
    """Bytes of the longest of a GIF's comments."""
    longest = 0
    start = data.find(b"!\xfe")
    while start >= 0:
        end = start + 2
        while end < len(data) and data[end]:
            end += 1 + data[end]
        longest = max(longest, end - start)
        start = data.find(b"!\xfe", end)
    return longest
