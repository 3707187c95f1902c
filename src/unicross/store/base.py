"""What every vector store is: rows, and one small protocol.

A row is a picture or a text with its vector. `lance.py` and `milvus.py` implement the protocol; one
contract test suite runs on all of them. N is a number of rows, D the size of a vector.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from unicross.axes import axes_from_text
from unicross.calibration import Calibration
from unicross.errors import NoStoreError, QueryError, StoreError
from unicross.store.filters import ColumnTypes, Value, Where

if TYPE_CHECKING:
    from unicross.store.thumbnails import Thumbnails

Vector = NDArray[np.float32]
Kind = Literal["image", "text"]

MAX_DEPTH = 10_000
"""Most hits that one search can reach (offset + k)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A picture, or a text. A text that belongs to a picture has the picture's path and album.

    Its fields before `extra` are the built-in columns of every store; nothing else lists them.
    """

    id: str
    kind: Kind
    path: str = ""
    """Absolute path of the picture; empty for a text alone."""
    size: int = 0
    """Bytes of the file; 0 for texts."""
    mtime: float = 0.0
    """When the file changed last, in seconds since 1970; 0 for texts."""
    caption: str = ""
    album: str = ""
    """The picture's folder, relative to the indexed folder."""
    extra: Mapping[str, Value] = field(default_factory=dict)
    """User columns."""
    vector: Vector | None = None
    """float32 [D], of length 1; None where it was not asked for."""
    digest: str = field(default="", compare=False)
    """Of the bytes from which the picture's vector was made (`digest_of`); no column, but kept in the
    archive, and empty where it is not known."""

    @classmethod
    def from_cells(cls, cells: Mapping[str, Any], vector: Vector | None = None) -> Row:
        """A row of the columns that an engine gave back; a user column that is None has no value."""
        extra = {name: value for name, value in cells.items() if name not in RESERVED and value is not None}
        return cls(**{name: cells[name] for name in COLUMNS}, extra=extra, vector=vector)

    @property
    def built_in(self) -> dict[str, Value]:
        """The built-in columns and their values."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS: ColumnTypes = {
    name: str if hint == Kind else hint
    for name, hint in get_type_hints(Row).items()
    if name not in ("extra", "vector", "digest")
}
"""The built-in columns and their types; user columns come on top."""

RESERVED = frozenset({*COLUMNS, "vector"})
"""Names that no user column can have."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A found row (without its vector) and its cosine with the query, in [-1, 1]."""

    row: Row
    score: float
    likelihood: float | None = None
    """How likely it is what was asked for, in [0, 1]; None where that is not known. `Searcher` says it."""
    others: tuple[Hit, ...] = ()
    """Hits that were folded into this one, best first."""


class StoreInfo(BaseModel):
    """What a store remembers about itself."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    """Of the model that filled it."""
    checkpoint: str
    """Where that model was."""
    dim: int
    axes: str = ""
    """In which its vectors are kept, as `axes_to_text` writes them; empty: as the model makes them."""
    roots: tuple[str, ...] = ()
    """The indexed folders, absolute."""
    calibration: Calibration | None = None
    """How likely the score of a picture found by words is a match; None where nobody fitted it."""

    @model_validator(mode="after")
    def _sound_axes(self) -> Self:
        if self.axes:
            axes_from_text(self.axes, self.dim)
        return self

    def check(self, fingerprint: str, *, address: str) -> None:
        """Raise StoreError unless the store was filled by the model with this fingerprint."""
        if self.fingerprint == f"{fingerprint}:{self.dim}":
            raise StoreError(
                f"an older version made the store {address}, with the first {self.dim} numbers of vectors; "
                f"principal axes find more: index into a new store with --dim {self.dim}"
            )
        if fingerprint != self.fingerprint:
            raise StoreError(
                f"the store {address} was filled by another model ({self.checkpoint} when its fingerprint "
                f"was {self.fingerprint}; this one's is {fingerprint}): use that one, or index into a new "
                "store. A run that went on has a new best model"
            )

    def updated(
        self,
        roots: Sequence[str] = (),
        checkpoint: str | None = None,
        without: Sequence[str] = (),
        calibration: Calibration | None = None,
    ) -> StoreInfo:
        """With these folders besides, `without` those, the checkpoint at its new place, a calibration."""
        ordered = dict.fromkeys((*self.roots, *roots))  # in the order in which they came
        all_roots = tuple(root for root in ordered if root not in without)
        return self.model_copy(
            update={
                "roots": all_roots,
                "checkpoint": checkpoint or self.checkpoint,
                "calibration": calibration or self.calibration,
            }
        )


def read_info(text: str, *, address: str) -> StoreInfo:
    """Parse what a store remembers. Raises StoreError."""
    try:
        return StoreInfo.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"{address}: the store's own description is damaged ({error.errors()[0]['msg']}): make a "
            "new store from its embeddings with `unicross store rebuild`"
        ) from None


def check_depth(k: int, offset: int) -> None:
    """Raise QueryError unless 1 <= k, 0 <= offset and offset + k <= MAX_DEPTH."""
    if k < 1 or offset < 0 or offset + k > MAX_DEPTH:
        raise QueryError(
            f"k must be at least 1, offset at least 0 and their sum at most {MAX_DEPTH}, "
            f"got k={k}, offset={offset}"
        )


def check_user_column(name: str) -> None:
    """Raise StoreError for a name that cannot be a user column."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or name in RESERVED:
        raise StoreError(
            f"column {name!r}: a user column is named with small letters, digits and _, and not as one of "
            f"{', '.join(COLUMNS)}, vector: rename it"
        )


def new_user_columns(rows: Iterable[Row], columns: ColumnTypes, *, address: str) -> dict[str, type]:
    """User columns of the rows that a store with these columns does not have yet, with their types.

    Raises StoreError for a name that cannot be a column and for a value of another type than the column's.
    """
    new: dict[str, type] = {}
    for row in rows:
        for name, value in row.extra.items():
            kind = columns.get(name) or new.get(name)
            if kind is None:
                check_user_column(name)
                new[name] = type(value)
            elif kind is not type(value) or name in COLUMNS:
                raise StoreError(
                    f"column {name!r} of {address} holds {kind.__name__}, got {value!r}: rename the column, "
                    "or index into a new store"
                )
    return new


def check_vectors(rows: Sequence[Row]) -> None:
    """Raise StoreError for a vector that is not finite: it would be near to everything, or to nothing."""
    for row in rows:
        if row.vector is not None and not np.isfinite(row.vector).all():
            raise StoreError(
                f"{row.path or row.caption!r}: its vector is not finite, so nothing was stored: the model is "
                "damaged, or its numbers are too large for this device"
            )


def make_id(kind: Kind, path: str, text: str = "") -> str:
    """A row's id: the same for the same picture (or the same text of the same picture) in every store."""
    parts = "\0".join((kind, path, text)).encode()
    return hashlib.blake2b(parts, digest_size=10).hexdigest()


def no_store(address: str) -> NoStoreError:
    return NoStoreError(
        f"no store at {address}: make one with `unicross index CHECKPOINT FOLDER --store {address}`"
    )


def in_folder(address: str) -> bool:
    """Whether a store of this address is a folder of its own: all but those of Milvus are."""
    return not address.startswith(("http://", "https://")) and ".db/" not in address


class Store(Protocol):
    """A vector store. All of its methods raise StoreError."""

    @property
    def address(self) -> str: ...

    @property
    def info(self) -> StoreInfo:
        """What the store remembers about itself; another process's changes are seen within seconds."""

    @property
    def columns(self) -> ColumnTypes:
        """All columns but the vector, user columns included, with their types."""

    @property
    def thumbnails(self) -> Thumbnails | None:
        """Small pictures that are kept with the rows and deleted with them; None where there is no folder for
        them."""

    def remember(
        self,
        *,
        roots: Sequence[str] = (),
        checkpoint: str | None = None,
        without: Sequence[str] = (),
        calibration: Calibration | None = None,
    ) -> None:
        """Add indexed folders to what the store remembers, drop those in `without`, note what else is
        given."""

    def upsert(self, rows: Sequence[Row]) -> None:
        """Put rows in, in place of those with the same ids. All of them or, when killed, none."""

    def delete(self, ids: Sequence[str]) -> None:
        """Take rows out; ids that are not there are no error."""

    def search(
        self, vector: Vector, k: int, *, offset: int = 0, where: Where = (), vectors: bool = False
    ) -> list[Hit]:
        """The k rows nearest to a vector [D] of length 1 after the first `offset`, best first.

        Their own vectors come along with `vectors`.
        """

    def match(
        self, words: str, k: int, *, phrases: Sequence[str] = (), every_word: bool = False
    ) -> list[Hit]:
        """The k rows of either kind whose texts fit the words best, and hold every phrase word for word.

        With `every_word` those alone that have a text with all of the words in it, where no phrase is given.
        Texts are the caption, the path and all user columns of strings; the score is BM25's. Raises
        QueryError where the engine has no index of texts.
        """

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows with these ids, vectors included, in the order asked for; missing ones left out."""

    def count(self, where: Where = ()) -> int: ...

    def scan(self, where: Where = (), *, vectors: bool = False) -> Iterator[Row]:
        """All rows, in no particular order."""

    def values(self, column: str, limit: int, where: Where = ()) -> list[tuple[Value, int]]:
        """The values of a column and how often they occur, most frequent first; for filters."""

    def optimize(self) -> None:
        """Tidy up after many changes: compact, and build or refresh the index."""

    def close(self) -> None: ...
