"""open_clip folders and hub names: stub."""

from __future__ import annotations

from unicross.errors import CheckpointError
from unicross.model.pairs import Pair


def load_open_clip(source: str) -> Pair:
    raise CheckpointError(source)
