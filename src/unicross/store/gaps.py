"""Keeping an archive of embeddings equal to its store: what a kill, a lost or a damaged file left out."""

from __future__ import annotations

from dataclasses import dataclass

from unicross.store.archive import EmbeddingArchive
from unicross.store.base import Store

CHUNK = 512
"""Rows that are written at once."""


@dataclass(frozen=True)
class Mended:
    """What an archive lacked."""

    rows: int
    """Those of the store that it has now."""
    problems: list[str]
    """Files that were missing or damaged, a sentence each."""


def fill_gaps(store: Store, archive: EmbeddingArchive, *, own: bool) -> Mended:
    """Add the rows of the store that the archive lacks. Looks once; later calls find nothing to do.

    `own`: it is the archive of this store alone, so what the store does not have is removed from it.
    Raises StoreError.
    """
    if archive.checked:
        return Mended(0, [])
    problems, ids = archive.mend()
    if problems:  # an older word on a row may be the last one that is left
        archived = {row.id: row for rows in archive.replay(vectors=False) for row in rows}
        rows = {row.id: row for row in store.scan()}
        lacking = [id for id, row in rows.items() if archived.get(id) != row]
        superfluous = sorted(archived.keys() - rows.keys())
    else:
        stored = {row.id for row in store.scan()}
        lacking, superfluous = sorted(stored - ids), sorted(ids - stored)
    for start in range(0, len(lacking), CHUNK):
        archive.append(store.get(lacking[start : start + CHUNK]))
    if own:
        archive.forget(superfluous)
    archive.checked = True
    return Mended(len(lacking), problems)
