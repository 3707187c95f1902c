"""What has to be done to bring a store in step with a catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unicross.store.base import Row
from unicross.store.catalog import Catalog


@dataclass(frozen=True)
class Changes:
    """What brings a store in step with a catalog."""

    to_embed: Sequence[Row]
    """New ones, and pictures whose file changed."""
    to_update: Sequence[Row]
    """With other captions or columns than are stored; their vectors stay."""
    unchanged: int


def find_changes(catalog: Catalog, stored: Mapping[str, Row]) -> Changes:
    """Compare what should be stored with what is, by id.

    A picture of which the captions file says nothing keeps its caption and columns; one of which it only
    says columns keeps its caption and its other columns.
    """
    to_embed, to_update, unchanged = [], [], 0
    for row in (*catalog.images.values(), *(catalog.texts or {}).values()):
        old = stored.get(row.id)
        if old is not None and row.kind == "image" and row.id not in catalog.captioned:
            row = replace(row, caption=old.caption, extra=old.extra)
        elif old is not None and row.kind == "image" and catalog.texts is None:
            row = replace(row, caption=old.caption, extra={**old.extra, **row.extra})
        if old is None or (old.size, old.mtime) != (row.size, row.mtime):
            to_embed.append(row)
        elif replace(old, vector=None) != row:
            to_update.append(row)
        else:
            unchanged += 1
    return Changes(to_embed, to_update, unchanged)
