"""What can be looked for in a store, and what cannot be asked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from unicross.data.images import AnyImage
from unicross.errors import QueryError
from unicross.hybrid import Mode
from unicross.store import Kind, Where
from unicross.store.base import check_depth


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
