"""What a request for a search may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from unicross.hybrid import Mode
from unicross.store import Kind
from unicross.store.base import MAX_DEPTH

Words = Annotated[str, Field(max_length=1000)]


class SearchParameters(BaseModel):
    """The parameters of a request for a search, of which a `Query` is made."""

    model_config = ConfigDict(extra="forbid")

    q: Words = Field("", description="what to look for, in words")
    like: str = Field("", max_length=64, description='a stored id: "more like this"')
    minus: list[Words] = Field([], max_length=8, description="words whose meaning is taken away")
    where: list[Words] = Field([], max_length=32, description="filters: album=beach, mtime>=2024-05-01")
    kind: Kind = Field("image", description="find pictures or texts")
    weight: float = Field(0.5, ge=0, le=1, description="with words and a picture: the picture's share")
    mode: Mode = Field("vector", description="compare words as a vector, with the words of texts, or both")
    fold: bool = Field(False, description="make one hit of near-duplicates, with the others in it")
    near: float | None = Field(None, gt=0, le=1, description="with fold: from which cosine")
    by: str = Field("", max_length=64, description="a column: make one hit of rows with the same value")
    min_score: float = Field(0, ge=0, le=1, description="leave out pictures less likely a match than this")
    k: int = Field(24, ge=1, le=200, description="how many")
    offset: int = Field(0, ge=0, le=MAX_DEPTH - 201, description="how many to leave out at the top")
