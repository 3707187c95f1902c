"""What the kill test runs in a process of its own: indexing, slowly and in small chunks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import unicross.store.index
from fake_model import FakeModel
from unicross.store import StoreInfo, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.index import index
from unicross.store.lance import LanceStore

__all__ = ["LanceStore", "run"]  # the store is imported here so that a forked process has it at once


class Slow(FakeModel):
    def encode_pixels(self, pixels: NDArray[Any]) -> NDArray[Any]:
        time.sleep(0.01)
        return super().encode_pixels(pixels)


def run(photos: Path, address: str, started: Any) -> None:
    """Index `photos` into the store at `address`, four pictures a chunk; set `started` when it begins."""
    unicross.store.index.CHUNK = 4
    model = Slow()
    store = open_store(address, StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16))
    started.set()
    index(model, photos, store, archive=EmbeddingArchive(Path(address) / "embeddings"), thumbnails=64)
