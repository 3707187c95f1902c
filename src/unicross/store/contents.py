"""Pictures that are known again by their content: renamed, copied, or only written anew.

The archive of embeddings keeps beside each vector a digest of the bytes that it was made of. A picture to
embed whose bytes have that digest gets that vector. So the vector is always that of the bytes, whatever
names and times say; where a digest is not known, as in archives that older versions wrote, pictures are
embedded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from unicross.data.image_source import ImageFile, ImageSource
from unicross.store.archive import CHUNK, EmbeddingArchive, write_rows
from unicross.store.base import Row, Store


class Digested:
    """An image source that notes the digest of the bytes that it gave."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.digest = ""

    @property
    def name(self) -> str:
        return self._source.name

    def read(self) -> bytes:
        data = self._source.read()
        self.digest = digest_of(data)
        return data

    def stamp(self) -> str:
        return self._source.stamp()


def digest_of(data: bytes) -> str:
    """The digest by which a picture's file is known again, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def source_of(row: Row, pictures: Mapping[str, ImageSource]) -> ImageSource:
    """Where a row's picture is read from; `pictures`: those that are no files of their own, by path."""
    return pictures.get(row.path) or ImageFile(Path(row.path))


def find_known(
    store: Store, archive: EmbeddingArchive, rows: Iterable[Row], pictures: Mapping[str, ImageSource]
) -> dict[str, list[Row]]:
    """For pictures without vectors: the stored rows of the same content, by the id of the picture's row.

    Found rows have the digest and no vector. Only pictures of a size that the archive knows are read.
    """
    images = [row for row in rows if row.kind == "image"]
    sizes = {row.size for row in images}
    archived = [
        row
        for part in (archive.replay(vectors=False) if images else ())
        for row in part
        if row.digest and row.size in sizes
    ]
    sizes = {row.size for row in archived}
    images = [row for row in images if row.size in sizes]

    def digest(row: Row) -> str:
        try:
            return digest_of(source_of(row, pictures).read())
        except OSError:  # said when it is embedded
            return ""

    with ThreadPoolExecutor() as pool:
        digests = dict(zip((row.id for row in images), pool.map(digest, images), strict=True))
    asked = set(digests.values())
    by_digest: dict[str, list[Row]] = {}
    for row in _as_stored(store, [row for row in archived if row.digest in asked]):
        by_digest.setdefault(row.digest, []).append(row)
    return {id: by_digest[digest] for id, digest in digests.items() if digest in by_digest}


def copy_vectors(store: Store, archive: EmbeddingArchive, copies: Sequence[tuple[Row, Row]]) -> None:
    """Put in rows of pictures, each with the vector and the digest of the stored row beside it."""
    for start in range(0, len(copies), CHUNK):
        chunk = copies[start : start + CHUNK]
        vectors = {row.id: row.vector for row in store.get([old.id for _, old in chunk])}
        rows = [replace(row, vector=vectors[old.id], digest=old.digest) for row, old in chunk]
        if store.thumbnails is not None:
            store.thumbnails.copy((old, row) for row, old in chunk)
        write_rows(store, archive, rows)


def digests_of(archive: EmbeddingArchive, rows: Iterable[Row]) -> dict[str, str]:
    """By id, the digests of rows that the archive has with the same size and time."""
    states = {row.id: (row.size, row.mtime) for row in rows}
    return {
        row.id: row.digest
        for part in archive.replay(vectors=False)
        for row in part
        if row.digest and states.get(row.id) == (row.size, row.mtime)
    }


def _as_stored(store: Store, archived: Sequence[Row]) -> list[Row]:
    """Those archived rows that the store has with the same size and time: its vectors are of those bytes.

    A kill between archive and store can leave the store behind, and several stores may share an archive.
    """
    stored = {row.id: (row.size, row.mtime) for row in store.get([row.id for row in archived])}
    return [row for row in archived if stored.get(row.id) == (row.size, row.mtime)]
