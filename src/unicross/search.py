"""Finding pictures and texts in a store: by words, by a picture, by both, by something already stored.

The command line and the HTTP server both use `Searcher.find` and nothing below it. D is the vector's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from unicross.data.images import AnyImage
from unicross.embed import Encoder, embed_images, shortened
from unicross.errors import NOT_FINITE, CheckpointError, DataError, QueryError, StoreError, UnknownIdError
from unicross.folding import cell, fold, near_duplicates, near_in, same_value
from unicross.fusion import unquoted
from unicross.hybrid import CANDIDATES, Mode, hybrid_hits, pictures_word_for_word
from unicross.store import Condition, Hit, Kind, Row, Store, Where, open_store
from unicross.store.base import MAX_DEPTH, Vector, check_depth
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


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: words, a picture, both of them, or more like something stored.

    >>> Query("a red boat", minus=["people"], where=[Condition("album", "=", "lake")], k=20)
    >>> Query(image=Path("query.jpg"), kind="text")

    Raises QueryError where that cannot be answered.
    """

    words: str | None = None
    image: AnyImage | None = None
    """A path, an image source, a PIL image, or a uint8 array [H, W, 3]."""
    like: str | None = None
    """The id of a stored picture or text, which is itself no hit; in place of words and picture."""
    minus: Sequence[str] = ()
    """Texts whose meaning is taken away from the query ("beach" without "people")."""
    where: Where = ()
    """Conditions that every hit meets."""
    kind: Kind = "image"
    """Find pictures or texts."""
    weight: float = 0.5
    """With words and a picture: the picture's share, in [0, 1]."""
    mode: Mode = "vector"
    """Whether words are compared as a vector, as words with the texts of pictures, or both ways. A picture,
    and what is asked for with `like`, is always compared as a vector."""
    fold: bool = False
    """Whether near-duplicates become one hit, with the others in its `others`."""
    near: float | None = None
    """The cosine from which two hits are near-duplicates; by default by how near the store's rows lie to each
    other (`folding.near_in`)."""
    by: str | None = None
    """A column: all rows with the same value become one hit, such as the pictures of one `item`; those that
    are no hits themselves are in its `others` too."""
    k: int = 10
    """Most hits."""
    offset: int = 0
    """Hits to leave out at the top, for paging."""
    min_score: float = 0.0
    """Pictures that are less likely a match are left out, in [0, 1]. In mode `hybrid` those stay that have a
    text with every word of the query in it, or with what it quotes."""

    def __post_init__(self) -> None:
        if self.like is not None and (self.words is not None or self.image is not None):
            raise QueryError("give either like or a query of words and a picture, not both")
        if isinstance(self.minus, str):
            raise QueryError("minus takes a list of texts: put the one text into a list")
        asks_with_words = self.words is not None or (self.image is None and self.like is None)
        texts = [self.words or "", *self.minus] if asks_with_words else self.minus
        if not all(text.strip() for text in texts):
            raise QueryError("the search text is empty: say what to look for")
        if not 0 <= self.weight <= 1:
            raise QueryError(f"the picture's weight must be between 0 and 1, got {self.weight}")
        if self.kind not in get_args(Kind):
            raise QueryError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.mode not in get_args(Mode):
            raise QueryError(f"mode must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if self.mode != "vector" and self.words is None:
            raise QueryError(f"mode {self.mode}: there are no words in the query that texts could match")
        if self.near is not None and not self.fold:
            raise QueryError("near says from which cosine near-duplicates are folded: ask for fold too")
        if self.near is not None and not 0 < self.near <= 1:
            raise QueryError(f"near is a cosine above 0 and up to 1, got {self.near}")
        if not 0 <= self.min_score <= 1:
            raise QueryError(f"min_score is how likely a match is, between 0 and 1, got {self.min_score}")
        if self.min_score and not self.is_by_words:
            raise QueryError(
                "min_score: how likely a match is can be told of pictures that are found by words alone, "
                "without minus: leave it out"
            )
        if self.min_score and self.mode == "text":
            raise QueryError(
                "min_score: mode text finds what has the words in it, however likely a match it is by its "
                "looks: leave it out, or search with mode hybrid"
            )
        check_depth(self.k, self.offset)

    @property
    def folds(self) -> bool:
        """Whether several hits may become one."""
        return self.fold or self.by is not None

    @property
    def is_by_words(self) -> bool:
        """Whether it looks for pictures by words and nothing else."""
        return self.kind == "image" and self.image is None and self.like is None and not self.minus


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
        return shortened(TwoTower.load(path, device), store.info.dim)
    except CheckpointError as error:
        raise StoreError(f"the model of {store.address}: {error}") from error
