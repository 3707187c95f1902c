"""The cheap part of the check for leaks: pictures that are held out and trained on, byte for byte.

Only files of equal size are read, so it costs a look at each file's size. Pictures inside shards are not
looked at: `check` does.
"""

from __future__ import annotations

import os

import numpy as np

from unicross.config import DataConfig
from unicross.data.image_source import Files
from unicross.data.items import Items
from unicross.data.load import open_source, read_options
from unicross.hygiene.fingerprints import content_digest
from unicross.reading import LARGEST_PICTURE, read_bytes


def exact_leaks(trained: DataConfig, held_out: Items) -> list[tuple[str, str]]:
    """The paths of pictures among `held_out` that have the bytes of one trained on, and of that one.

    Nothing where the training data name no split or are not files of their own. Raises DataError where the
    training data cannot be read.
    """
    if trained.split.train is None or not isinstance(held_out.pictures, Files):
        return []
    records = open_source(trained.root, trained.format, read_options(trained)).records
    if not isinstance(records.pictures, Files):
        return []
    asked = [records.splits.index(name) for name in trained.split.train.split("+") if name in records.splits]
    rows = np.unique(records.picture[np.isin(records.split, asked)])
    paths = list(held_out.pictures.files(held_out.images))
    by_size: dict[int, list[str]] = {}
    for path in set(records.pictures.files(rows[rows >= 0])).difference(paths):
        by_size.setdefault(_size(path), []).append(path)
    leaks = []
    for path in paths:
        for twin in by_size.get(_size(path), ()):
            if _digest(path) == _digest(twin) is not None:
                leaks.append((path, twin))
                break
    return leaks


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _digest(path: str) -> bytes | None:
    try:
        return content_digest(read_bytes(path, LARGEST_PICTURE))
    except OSError:
        return None
