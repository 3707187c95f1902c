"""Opening files that somebody else wrote: never waiting, and never more than can be meant.

A name may belong to a pipe (opening it waits for ever), to a device (reading `/dev/zero` never ends), or to a
file that claims gigabytes. Such files are refused with an OSError whose `strerror` is a sentence, as those of
files that are not there are.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST_PICTURE = 512 * 2**20
"""Bytes of an encoded picture; uncompressed, as many pixels as are ever decoded take half of that."""
LARGEST_TEXT = 2 * 2**30
"""Bytes of a table or another text, which is read as a whole."""
LARGEST_SETTINGS = 64 * 2**20
"""Bytes of a recipe, a configuration, or another small file that says how something is."""


def open_file(path: Path | str, largest: int | None = None) -> BinaryIO:
    """Open a regular file of at most `largest` bytes for reading.

    Raises OSError for anything else, at once.
    """
    _refuse(os.stat(path), path, largest)  # opening alone can act upon a device
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _refuse(os.fstat(descriptor), path, largest)  # it may have been another file a moment ago
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path | str, largest: int) -> bytes:
    """The content of a regular file of at most `largest` bytes. Raises OSError."""
    with open_file(path, largest) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise _too_large(path, largest)  # it grew
    return data


def read_text(path: Path | str, largest: int = LARGEST_SETTINGS, encoding: str = "utf-8") -> str:
    """The text of a regular file of at most `largest` bytes. Raises OSError, and ValueError for what is no
    such text."""
    return read_bytes(path, largest).decode(encoding)


def check_file(path: Path | str, largest: int | None = None) -> None:
    """Raise OSError unless this is a regular file of at most `largest` bytes, for libraries that open by
    name."""
    _refuse(os.stat(path), path, largest)


def why_not(status: os.stat_result, largest: int | None) -> str | None:
    """What keeps a file with this status from being read; None where nothing does."""
    if stat.S_ISDIR(status.st_mode):
        return "a folder, where a file should be"
    if not stat.S_ISREG(status.st_mode):
        return "no regular file but a pipe, a socket or a device"
    if largest is not None and status.st_size > largest:
        return f"{status.st_size} bytes, above the limit of {largest}"
    return None


def _refuse(status: os.stat_result, path: Path | str, largest: int | None) -> None:
    reason = why_not(status, largest)
    if reason is not None:
        kind = errno.EFBIG if stat.S_ISREG(status.st_mode) else errno.EINVAL
        raise OSError(kind, reason, str(path))


def _too_large(path: Path | str, largest: int) -> OSError:
    return OSError(errno.EFBIG, f"more than the limit of {largest} bytes", str(path))
