"""Writing files so that a kill or a power cut leaves the old one or the new one, never a half."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(data)
    commit(beside, path)


def commit(beside: Path, path: Path) -> None:
    """Flush a written file to the disk and give it its name. Raises OSError."""
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    beside.replace(path)
    if os.name == "posix":  # the rename itself lies in the folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
