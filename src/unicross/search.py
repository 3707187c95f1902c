"""Finding pictures and texts in a store: by words, by a picture, by both, by something already stored.

The command line and the HTTP server both use `Searcher.find` and nothing below it. D is the vector's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from unicross.data.images import AnyImage
from unicross.embed import Encoder, embed_images
from unicross.errors import NOT_FINITE, CheckpointError, DataError, QueryError, StoreError, UnknownIdError
from unicross.store import Condition, Hit, Kind, Row, Store, Where, open_store
from unicross.store.base import Vector, check_depth

if TYPE_CHECKING:
    from unicross.model import TwoTower

MINUS_WEIGHT = 0.5
"""How much of an unwanted text's vector is taken away from the query's."""

MIN_LENGTH = 1e-6
"""A query's vector shorter than this points nowhere: rounding made it."""


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
    k: int = 10
    """Most hits."""
    offset: int = 0
    """Hits to leave out at the top, for paging."""

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
        check_depth(self.k, self.offset)


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

    def find(self, query: Query) -> list[Hit]:
        """What is nearest to a query, best first.

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
        return self.store.search(vector / length, query.k, offset=query.offset, where=where)

    def row(self, id: str) -> Row:
        """The stored row with this id. Raises UnknownIdError, StoreError."""
        rows = self.store.get([id])
        if not rows:
            raise UnknownIdError(f"no row with the id {id!r} in {self.store.address}")
        return rows[0]

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
        vector: Vector = self.model.encode_texts([words])[0]
        return vector

    def _image(self, image: AnyImage) -> Vector:
        (vector,) = embed_images(self.model, [image])
        if isinstance(vector, DataError):
            raise vector
        return vector


def open_searcher(address: str, *, model: Path | None = None, device: str | None = None) -> Searcher:
    """The store at an address with the model that filled it; see `open_model`."""
    store = open_store(address)
    return Searcher(open_model(store, model, device), store)


def open_model(store: Store, path: Path | None = None, device: str | None = None) -> TwoTower:
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
        return TwoTower.load(path, device)
    except CheckpointError as error:
        raise StoreError(f"the model of {store.address}: {error}") from error
