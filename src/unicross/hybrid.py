"""Words that match texts, beside vectors that match meanings: full-text search, alone or fused with the
vectors.

A text that belongs to a picture speaks for its picture. Both rankings are cut at a fixed depth and fused by
reciprocal rank, so that neither cosines nor BM25's scores have to be on one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from unicross.fusion import fuse, phrases_of, unquoted
from unicross.store.base import MAX_DEPTH, Hit, Kind, Row, Store, Vector, make_id
from unicross.store.filters import Condition, Where

Mode = Literal["vector", "text", "hybrid"]
"""By vectors, by the words of texts, or by both."""

CANDIDATES = 100
"""Of each ranking that is fused; more where more hits are asked for."""

MATCHED_PER_HIT = 6
"""Matching rows that are read for a candidate: five captions and the picture itself may all match."""


def hybrid_hits(
    store: Store,
    vector: Vector,
    words: str,
    mode: Literal["text", "hybrid"],
    depth: int,
    kind: Kind,
    where: Where,
) -> list[Hit]:
    """The `depth` best hits by words, or by words and `vector` [D]; their scores are cosines with it.

    `where` has a condition on the kind in it. What is in quotes must stand in a hit's texts word for word.
    Raises QueryError, StoreError.
    """
    depth = max(depth, CANDIDATES)
    phrases = phrases_of(words)
    rows = _matching(store, unquoted(words), phrases, depth, kind, where)
    rankings = [list(rows)]
    hits: dict[str, Hit] = {}
    if mode == "hybrid":
        near = store.search(vector, depth, where=where, vectors=True)
        hits = {hit.row.id: hit for hit in near if not phrases or hit.row.id in rows}
        rankings.insert(0, list(hits))
    for id, row in rows.items():
        if id not in hits and row.vector is not None:
            hits[id] = Hit(row, float(np.dot(row.vector, vector)))
    return [hits[id] for id in fuse(*rankings)]


def pictures_word_for_word(store: Store, words: str) -> set[str]:
    """Ids of the pictures with a text that holds every word of a query, or, where it quotes, what it quotes.

    The best 10,000 texts are looked at. Raises QueryError, StoreError.
    """
    phrases = phrases_of(words)
    matched = store.match(unquoted(words), MAX_DEPTH, phrases=phrases, every_word=not phrases)
    return set(_ids(matched, "image"))


def _matching(
    store: Store, words: str, phrases: Sequence[str], depth: int, kind: Kind, where: Where
) -> dict[str, Row]:
    """Rows of the kind whose texts match and that meet the conditions, best first, by id, with vectors."""
    narrowed = 4 if len(where) > 1 else 1  # conditions are looked at afterwards and take some of them away
    matched = store.match(words, min(MAX_DEPTH, depth * MATCHED_PER_HIT * narrowed), phrases=phrases)
    ids = _ids(matched, kind)
    if not ids:
        return {}
    meets = [*where, Condition("id", "in", tuple(ids))]
    rows = {row.id: row for row in store.scan(meets, vectors=True)}
    return {id: rows[id] for id in ids if id in rows}


def _ids(matched: Sequence[Hit], kind: Kind) -> list[str]:
    """Ids of the texts that matched, or of the pictures that they belong to; each once, best first."""
    if kind == "text":
        ids = [hit.row.id for hit in matched if hit.row.kind == "text"]
    else:
        ids = [make_id("image", hit.row.path) if hit.row.path else hit.row.id for hit in matched]
    return list(dict.fromkeys(ids))
