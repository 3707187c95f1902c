"""Making the thumbnails that a store keeps: of pictures while they are embedded, and of those that have none.

A picture is read once for both its vector and its thumbnail. Pictures that links lead to out of the indexed
folders get none, as the server would not show them either.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from unicross.data.decoding import decode
from unicross.data.image_source import ImageSource
from unicross.data.images import thumbnail
from unicross.data.lookup import lies_in
from unicross.embed import Failure
from unicross.errors import DataError
from unicross.progress import track
from unicross.store.archive import CHUNK
from unicross.store.base import Row, Store
from unicross.store.catalog import Catalog
from unicross.store.contents import source_of
from unicross.store.filters import Condition


class Thumbnailed:
    """An image source that makes a thumbnail of the bytes that it gives.

    Its `read` raises DataError, too, for what cannot be decoded.
    """

    def __init__(self, source: ImageSource, side: int) -> None:
        self._source, self._side = source, side
        self.jpeg = b""

    @property
    def name(self) -> str:
        return self._source.name

    def read(self) -> bytes:
        data = self._source.read()
        image = decode(data, self.name, self._side, fast=True)
        self.jpeg = thumbnail(image, (self._side, self._side))
        return data

    def stamp(self) -> str:
        return self._source.stamp()


def sources_of(
    store: Store, rows: Iterable[Row], pictures: Mapping[str, ImageSource]
) -> Mapping[str, ImageSource]:
    """By path, where rows' pictures are read from, so that thumbnails are made if the store keeps any.

    `pictures`: those that are no files of their own. What is made is kept by `keep`.
    """
    side = store.thumbnails.side if store.thumbnails is not None else None
    if side is None:
        return pictures
    roots = store.info.roots
    sources = {row.path: source_of(row, pictures) for row in rows if row.kind == "image"}
    return {
        path: Thumbnailed(source, side) if lies_in(path, roots) else source
        for path, source in sources.items()
    }


def keep(store: Store, rows: Iterable[Row], sources: Mapping[str, ImageSource]) -> int:
    """Keep the thumbnails that were made when the pictures of rows were read. Returns how many."""
    made = [
        (row, source.jpeg)
        for row in rows
        if row.kind == "image" and isinstance(source := sources.get(row.path), Thumbnailed) and source.jpeg
    ]
    if made and store.thumbnails is not None:
        store.thumbnails.put(made)
    return len(made)


def fill_thumbnails(store: Store, catalog: Catalog) -> tuple[int, list[Failure]]:
    """Make those that pictures of a catalog lack, or have of another side, and drop those of no picture.

    Does nothing where the store keeps none. Returns how many it made, and of which pictures it could not.
    Raises StoreError.
    """
    kept = store.thumbnails
    if kept is None or kept.side is None:
        return 0, []
    states = kept.states()
    stored = {row.id: row for row in store.scan([Condition("kind", "=", "image")])}
    kept.delete(sorted(states.keys() - stored.keys()))
    side = kept.side
    lacking = [
        row
        for row in catalog.images.values()
        if _is_stored(row, stored) and states.get(row.id) != (row.size, row.mtime, side)
    ]
    made, failures = 0, []
    chunks = [lacking[start : start + CHUNK] for start in range(0, len(lacking), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk in track("thumbnails", chunks, len(chunks)):
            sources = sources_of(store, chunk, catalog.pictures)
            failures += [failure for failure in pool.map(_read, sources.values()) if failure is not None]
            made += keep(store, chunk, sources)
    return made, failures


def _is_stored(row: Row, stored: Mapping[str, Row]) -> bool:
    """Whether a picture of a catalog was embedded as it is now."""
    old = stored.get(row.id)
    return old is not None and (old.size, old.mtime) == (row.size, row.mtime)


def _read(source: ImageSource) -> Failure | None:
    """Read a picture for its thumbnail. Returns why that cannot be done, if so."""
    if not isinstance(source, Thumbnailed):
        return None
    try:
        source.read()
    except OSError as error:
        return Failure(source.name, f"no thumbnail: cannot be read: {error.strerror or error}")
    except DataError as error:
        return Failure(source.name, f"no thumbnail: {str(error).removeprefix(f'{source.name}: ')}")
    return None
