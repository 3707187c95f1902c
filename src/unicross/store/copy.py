"""Moving rows between stores of any engine, and making a store anew from an archive of embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from unicross.errors import StoreError
from unicross.progress import track
from unicross.store.archive import EmbeddingArchive
from unicross.store.base import Row, Store, StoreInfo
from unicross.store.thumbnails import Thumbnails

CHUNK = 1000
"""Rows that are written at once."""


def copy(old: Store, new: Store, archive: EmbeddingArchive | None = None) -> None:
    """Put all rows of a store into another one; rows with the same ids are replaced.

    Kept thumbnails go along where the new store has a folder. `archive` is that of the new store. Raises
    StoreError.
    """
    new.info.check(old.info.fingerprint, address=new.address)
    if old.thumbnails is not None and new.thumbnails is not None:
        new.thumbnails.copy_from(old.thumbnails)
    chunks = _chunks(old.scan(vectors=True))
    _fill(new, track("copying", chunks, math.ceil(old.count() / CHUNK)), old.info, archive)


def rebuild(old: EmbeddingArchive, new: Store, archive: EmbeddingArchive | None = None) -> None:
    """Put all rows of an archive into a store, and the thumbnails of the store that it lies in; see `copy`.

    Raises StoreError, before the store is touched, where the archive has no rows or lacks some that it had.
    """
    new.info.check(old.info.fingerprint, address=new.address)
    rows = (row for rows in old.replay() for row in rows)
    first = next(rows, None)
    if first is None:
        raise StoreError(
            f"{old.folder}: the archive holds no rows: `unicross index` fills it from its store, or anew"
        )
    kept = Thumbnails(old.folder.parent)
    if new.thumbnails is not None and not new.thumbnails.is_of(old.folder.parent):
        new.thumbnails.copy_from(kept)
    _fill(new, _chunks(chain([first], rows)), old.info, archive)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _fill(
    store: Store, chunks: Iterable[list[Row]], old: StoreInfo, archive: EmbeddingArchive | None
) -> None:
    store.remember(roots=old.roots, calibration=old.calibration)
    if archive is not None:
        archive.describe(store.info)
    for chunk in chunks:
        if archive is not None:
            archive.append(chunk)
        store.upsert(chunk)
    store.optimize()
