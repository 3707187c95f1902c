"""Finding pictures and texts in a store: by words, by a picture, by both, by something already stored.

The command line and the HTTP server both use `Searcher` and nothing below it. D is the vector's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from unicross.data.images import AnyImage, load_square
from unicross.embed import Encoder
from unicross.errors import CheckpointError, QueryError, StoreError
from unicross.store import Condition, Hit, Kind, Row, Store, Where, open_store

Vector = NDArray[np.float32]

MINUS_WEIGHT = 0.5
"""How much of an unwanted text's vector is taken away from the query's."""


class Options(TypedDict, total=False):
    """What every search takes."""

    kind: Kind
    """Find pictures (the default) or texts."""
    minus: Sequence[str]
    """Texts whose meaning is taken away from the query ("beach" without "people")."""
    where: Where
    """Conditions that every hit meets."""
    offset: int
    """Hits to leave out at the top, for paging."""


class Searcher:
    """A model and the store that it filled."""

    def __init__(self, model: Encoder, store: Store) -> None:
        """Raises StoreError where another model filled the store."""
        store.info.check(model.fingerprint(), address=store.address)
        self.model = model
        self.store = store

    def by_text(self, words: str, k: int = 10, **options: Unpack[Options]) -> list[Hit]:
        """What is nearest to words. Raises StoreError."""
        return self._find(self._text(words), k, options)

    def by_image(self, image: AnyImage, k: int = 10, **options: Unpack[Options]) -> list[Hit]:
        """What is nearest to a picture. Raises DataError for one that cannot be read, StoreError."""
        return self._find(self._image(image), k, options)

    def by_both(
        self, words: str, image: AnyImage, k: int = 10, *, weight: float = 0.5, **options: Unpack[Options]
    ) -> list[Hit]:
        """What is nearest to words and a picture; `weight`, in [0, 1], is the picture's share."""
        if not 0 <= weight <= 1:
            raise QueryError(f"the picture's weight must be between 0 and 1, got {weight}")
        vector = (1 - weight) * self._text(words) + weight * self._image(image)
        return self._find(vector, k, options)

    def by_id(self, id: str, k: int = 10, **options: Unpack[Options]) -> list[Hit]:
        """What is nearest to a stored picture or text, itself left out."""
        row = self.row(id)
        assert row.vector is not None
        where = (*options.pop("where", ()), Condition("id", "!=", id))
        return self._find(row.vector, k, {**options, "where": where})

    def row(self, id: str) -> Row:
        """The stored row with this id. Raises StoreError."""
        rows = self.store.get([id])
        if not rows:
            raise QueryError(f"no row with the id {id!r} in {self.store.address}")
        return rows[0]

    def _text(self, words: str) -> Vector:
        if not words.strip():
            raise QueryError("the search text is empty: say what to look for")
        vector: Vector = self.model.encode_texts([words])[0]
        return vector

    def _image(self, image: AnyImage) -> Vector:
        square = load_square(image, self.model.config.image_size, self.model.config.resize)
        vector: Vector = self.model.encode_pixels(square[np.newaxis])[0]
        return vector

    def _find(self, vector: Vector, k: int, options: Options) -> list[Hit]:
        for words in options.get("minus", ()):
            vector = vector - MINUS_WEIGHT * self._text(words)
        length = float(np.linalg.norm(vector))
        if length < 1e-6:
            raise QueryError("nothing is left of the query: what is taken away is all that was asked for")
        where = [Condition("kind", "=", options.get("kind", "image")), *options.get("where", ())]
        return self.store.search(vector / length, k, offset=options.get("offset", 0), where=where)


def open_searcher(address: str, *, model: Path | None = None, device: str | None = None) -> Searcher:
    """The store at an address with the model that filled it: where the store remembers it, or at `model`.

    Raises StoreError where there is no store, the checkpoint is not where it was, or `model` is another one.
    """
    from unicross.model import TwoTower

    store = open_store(address)
    if model is None:
        model = Path(store.info.checkpoint)
        if not model.exists():
            raise StoreError(
                f"the checkpoint that filled {address} was at {model} and is not there any more: "
                "give its new place with --model"
            )
    try:
        encoder = TwoTower.load(model, device)
    except CheckpointError as error:
        raise StoreError(f"the model of {address}: {error}") from error
    return Searcher(encoder, store)
