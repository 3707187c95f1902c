"""Finding pictures and texts in a store: by words, by a picture, by both, by something already stored.

The command line and the HTTP server both use `Searcher.find` and nothing below it. D is the vector's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from unicross.data.images import AnyImage
from unicross.embed import Encoder, embed_images, shortened
from unicross.errors import NOT_FINITE, CheckpointError, DataError, QueryError, StoreError, UnknownIdError
from unicross.folding import cell, fold, near_duplicates, near_in, same_value
from unicross.fusion import unquoted
from unicross.hybrid import CANDIDATES, hybrid_hits, pictures_word_for_word
from unicross.query import Query
from unicross.store import Condition, Hit, Kind, Row, Store, Where, open_store
from unicross.store.base import MAX_DEPTH, Vector
from unicross.store.cached import Cached

MINUS_WEIGHT = 0.5
"""How much of an unwanted text's vector is taken away from the query's."""

MIN_LENGTH = 1e-6
"""A query's vector shorter than this points nowhere: rounding made it."""


FOLDED_PER_HIT = 3
"""Hits that are looked at first for each one that is shown, where some are folded."""

NEAR_AGE_S = 600.0
"""How long a store's threshold for near-duplicates is taken from its last sample, in seconds."""

OTHERS = 99
"""Other rows of its group that are looked for to stand behind a hit, on average."""


Rerank = Callable[[Query, Sequence[Hit]], Sequence[Hit]]
"""Puts hits, which have their vectors, into an order of its own."""


class Searcher:
    """A model and the store that it filled.

    >>> searcher = open_searcher("photos.lance")
    >>> for hit in searcher.find(Query("a dog in the snow")):
    ...     print(hit.score, hit.row.path)
    """

    def __init__(self, model: Encoder, store: Store) -> None:
        """Raises StoreError where another model filled the store."""
        store.info.check(model.fingerprint(), address=store.address)
        self.model = model
        self.store = store
        self._near = {kind: Cached(partial(near_in, store, kind), NEAR_AGE_S) for kind in get_args(Kind)}

    def find(self, query: Query, *, rerank: Rerank | None = None) -> list[Hit]:
        """What is nearest to a query, best first.

        `rerank` is given the query and the best hits, 100 where less are asked for, and returns them in an
        order of its own; it may leave some out, and give them scores of its own.

        Raises DataError for a picture that cannot be read, UnknownIdError for `like` with an id that is not
        stored, QueryError where nothing is left of the query, StoreError.
        """
        vector = self._asked(query)
        for words in query.minus:
            vector = vector - MINUS_WEIGHT * self._text(words)
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length):
            raise CheckpointError(NOT_FINITE)
        if length < MIN_LENGTH:
            raise QueryError("nothing is left of the query: what is taken away is all that was asked for")
        where = [Condition("kind", "=", query.kind), *query.where]
        if query.like is not None:
            where.append(Condition("id", "!=", query.like))
        vector = vector / length
        if query.by is not None:
            self.check_column(query.by)
        if query.mode == "vector" and not query.folds and rerank is None:
            return self._likely(query, self.store.search(vector, query.k, offset=query.offset, where=where))
        hits = self._folded(query, vector, where)
        if rerank is not None:
            hits = list(rerank(query, hits))
        hits = hits[query.offset : query.offset + query.k]
        return hits if query.by is None else self._with_others(query, query.by, hits, vector, where)

    def check_column(self, by: str) -> None:
        """Raise QueryError unless the store has a column of this name to group by."""
        if by not in self.store.columns:
            raise QueryError(f"by: no column {by!r} in this store; there are {', '.join(self.store.columns)}")

    def _folded(self, query: Query, vector: Vector, where: Where) -> list[Hit]:
        """The best hits with their vectors, folded: as many as fill the page where the store has so many."""
        wanted = query.offset + query.k
        depth = max(CANDIDATES, wanted * (FOLDED_PER_HIT if query.folds else 1))
        while True:
            depth = min(MAX_DEPTH, depth)
            hits = self._likely(query, self._candidates(query, vector, where, depth))
            is_all = len(hits) < depth or depth == MAX_DEPTH
            if query.fold and hits:
                vectors = np.stack([hit.row.vector for hit in hits if hit.row.vector is not None])
                near = self._near[query.kind].get() if query.near is None else query.near
                hits = fold(hits, near_duplicates(vectors, near))
            if query.by is not None:
                hits = fold(hits, same_value(hits, query.by))
            if is_all or len(hits) >= wanted or not query.folds:
                return hits
            depth *= 4  # nearly all were folded into a few: look further down

    def _candidates(self, query: Query, vector: Vector, where: Where, depth: int) -> list[Hit]:
        """The `depth` best hits with their vectors, before any is folded."""
        if query.mode == "vector":
            return self.store.search(vector, depth, where=where, vectors=True)
        assert query.words is not None  # checked by Query
        return hybrid_hits(self.store, vector, query.words, query.mode, depth, query.kind, where)

    def _with_others(
        self, query: Query, by: str, hits: Sequence[Hit], vector: Vector, where: Where
    ) -> list[Hit]:
        """The hits with the rest of their groups in `others`, after what was folded into them."""
        values = tuple({value for hit in hits if (value := cell(hit.row, by)) not in (None, "")})
        if not values:
            return list(hits)
        depth = min(MAX_DEPTH, (OTHERS + 1) * len(values))
        found = self.store.search(vector, depth, where=[*where, Condition(by, "in", values)])
        groups: dict[object, list[Hit]] = {}
        for member in self._told(query, found):
            groups.setdefault(cell(member.row, by), []).append(member)
        completed = []
        for hit in hits:
            others = {other.row.id: other for other in (*hit.others, *groups.get(cell(hit.row, by), ()))}
            others.pop(hit.row.id, None)
            completed.append(replace(hit, others=tuple(others.values())))
        return completed

    def row(self, id: str) -> Row:
        """The stored row with this id. Raises UnknownIdError, StoreError."""
        rows = self.store.get([id])
        if not rows:
            raise UnknownIdError(f"no row with the id {id!r} in {self.store.address}")
        return rows[0]

    def _likely(self, query: Query, hits: list[Hit]) -> list[Hit]:
        """The hits with how likely each is a match, where that is known, and without those too unlikely."""
        calibration = self.store.info.calibration
        if calibration is None and query.min_score:
            raise QueryError(
                f"min_score: {self.store.address} does not know how likely a score is a match: index with "
                "captions, or with a model whose training had a validation split"
            )
        told = self._told(query, hits)
        if not query.min_score:
            return told
        words = query.words if query.mode == "hybrid" else None
        stays = pictures_word_for_word(self.store, words) if words else set()
        return [hit for hit in told if (hit.likelihood or 0) >= query.min_score or hit.row.id in stays]

    def _told(self, query: Query, hits: list[Hit]) -> list[Hit]:
        """The hits with how likely each is a match, where that is known."""
        calibration = self.store.info.calibration
        if calibration is None or not query.is_by_words:
            return hits
        return [replace(hit, likelihood=calibration.likelihood(hit.score)) for hit in hits]

    def _asked(self, query: Query) -> Vector:
        """What is asked for before anything is taken away, [D]."""
        if query.like is not None:
            vector = self.row(query.like).vector
            assert vector is not None  # `get` gives vectors
            return vector
        if query.image is None:
            return self._text(query.words or "")
        if query.words is None:
            return self._image(query.image)
        return (1 - query.weight) * self._text(query.words) + query.weight * self._image(query.image)

    def _text(self, words: str) -> Vector:
        vector: Vector = self.model.encode_texts([unquoted(words)])[0]
        return vector

    def _image(self, image: AnyImage) -> Vector:
        (vector,) = embed_images(self.model, [image])
        if isinstance(vector, DataError):
            raise vector
        return vector


def open_searcher(
    address: str, *, model: Path | None = None, device: str | None = None, in_memory: bool = False
) -> Searcher:
    """The store at an address with the model that filled it; see `open_store` and `open_model`."""
    store = open_store(address, in_memory=in_memory)
    return Searcher(open_model(store, model, device), store)


def open_model(store: Store, path: Path | None = None, device: str | None = None) -> Encoder:
    """The model that filled a store: where the store remembers it, or at `path`.

    Raises StoreError where it is not there or cannot be read.
    """
    from unicross.model import TwoTower

    if path is None:
        path = Path(store.info.checkpoint)
        if not path.exists() and (path.is_absolute() or len(path.parts) != 2):  # hub names are owner/name
            raise StoreError(
                f"the checkpoint that filled {store.address} was at {path} and is not there any more: "
                "give its new place with --model"
            )
    try:
        return shortened(TwoTower.load(path, device), store.info.dim, store.info.axes)
    except CheckpointError as error:
        raise StoreError(f"the model of {store.address}: {error}") from error
