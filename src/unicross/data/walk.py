"""Walking a folder: the one way in which this project finds files, for training and for indexing alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(root: Path, on_error: Callable[[str, OSError], object]) -> Iterator[os.DirEntry[str]]:
    """All files under a folder: those of a folder by their names, then those of its folders by theirs.

    Hidden files and folders (`.name`) are left out. Links are followed, but no folder is entered twice,
    so loops end; of several paths to one folder, the one nearest to `root` counts. Links to nowhere come
    out as files. The path of a folder that cannot be read is given to `on_error` with the reason, which may
    raise.
    """
    try:
        entered = {_identity(str(root))}
    except OSError as error:
        on_error(str(root), error)
        return
    pending = [str(root)]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            on_error(folder, error)
            continue
        subfolders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield entry
                continue
            # Marked when listed, not when entered: a link deep in `train` must not take `val` away.
            identity = _identity(entry.path)
            if identity not in entered:
                entered.add(identity)
                subfolders.append(entry.path)
        pending.extend(reversed(subfolders))


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
