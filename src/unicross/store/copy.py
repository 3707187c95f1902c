"""Moving rows between stores of any engine, and making a store anew from kept embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unicross.store.base import Row, Store
from unicross.store.keep import Keep

CHUNK = 1000
"""Rows that are written at once."""


def copy(old: Store, new: Store) -> None:
    """Put all rows of a store into another one; rows with the same ids are replaced. Raises StoreError."""
    new.info.check(old.info.fingerprint, address=new.address)
    _fill(new, old.scan(vectors=True), old.info.roots)


def rebuild(keep: Keep, new: Store) -> None:
    """Put all rows that were kept as Parquet into a store. Raises StoreError."""
    new.info.check(keep.info.fingerprint, address=new.address)
    _fill(new, (row for rows in keep.replay() for row in rows), keep.info.roots)


def _fill(store: Store, rows: Iterable[Row], roots: tuple[str, ...]) -> None:
    both = tuple(dict.fromkeys((*store.info.roots, *roots)))
    store.remember(store.info.model_copy(update={"roots": both}))
    for chunk in _chunks(rows):
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
