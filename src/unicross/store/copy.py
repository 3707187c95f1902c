"""Moving rows between stores of any engine, and making a store anew from kept embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unicross.store.base import Row, Store
from unicross.store.keep import Keep

CHUNK = 1000
"""Rows that are written at once."""


def copy(old: Store, new: Store, keep: Keep | None = None) -> None:
    """Put all rows of a store into another one; rows with the same ids are replaced.

    `keep` is where the new store's embeddings are kept as Parquet. Raises StoreError.
    """
    new.info.check(old.info.fingerprint, address=new.address)
    _fill(new, old.scan(vectors=True), old.info.roots, keep)


def rebuild(old: Keep, new: Store, keep: Keep | None = None) -> None:
    """Put all rows that were kept as Parquet into a store; see `copy`. Raises StoreError."""
    new.info.check(old.info.fingerprint, address=new.address)
    _fill(new, (row for rows in old.replay() for row in rows), old.info.roots, keep)


def _fill(store: Store, rows: Iterable[Row], roots: tuple[str, ...], keep: Keep | None) -> None:
    store.remember(roots=roots)
    if keep is not None:
        keep.describe(store.info)
    for chunk in _chunks(rows):
        if keep is not None:
            keep.append(chunk)
        store.upsert(chunk)
    store.optimize()


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
