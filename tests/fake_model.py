"""A tiny stand-in for `TwoTower`: knows colours only, needs no torch, and is deterministic.

A picture is embedded as the colours of its four quarters, a text as the colours that it names, so "red"
finds red pictures and a red picture finds texts about red.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unicross.data.preparation import PictureRules
from unicross.store import StoreInfo

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 60),
    "blue": (40, 60, 220),
    "yellow": (235, 220, 40),
    "purple": (150, 50, 170),
    "orange": (240, 140, 30),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
}


INFO = StoreInfo(fingerprint="fake-1", checkpoint="m", dim=16)
"""Of a store that it filled."""


class FakeModel:
    dim = 16
    picture_rules = PictureRules(16, "squash", (0.5,) * 3, (0.5,) * 3)

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.pictures = 0
        """How many pictures were embedded so far."""

    def preparation(self) -> list[str]:
        return []

    def fingerprint(self) -> str:
        return f"{self.name}-1"

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.pictures += len(pixels)
        assert pixels.shape[1:] == (16, 16, 3)
        quarters = pixels.reshape(len(pixels), 2, 8, 2, 8, 3).mean(axis=(2, 4)).reshape(len(pixels), 12)
        return _unit(quarters)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = []
        for text in texts:
            named = [COLOURS[word] for word in text.lower().split() if word in COLOURS]
            if not named:  # an unknown text gets a colour of its own
                named = [tuple(hashlib.sha256(text.encode()).digest()[:3])]
            rows.append(np.tile(np.mean(named, axis=0), 4))
        return _unit(np.stack(rows))


def _unit(colours: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colours [N, 12] -> [N, 16] of length 1."""
    padded = np.concatenate([colours / 127.5 - 1, np.full((len(colours), 4), 0.2)], axis=1)
    return (padded / np.linalg.norm(padded, axis=1, keepdims=True)).astype(np.float32)


def paint(path: Path, colour: str | tuple[int, int, int], size: tuple[int, int] = (24, 20)) -> Path:
    """Write a picture of one colour; its time is set apart from other writes of the same second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour] if isinstance(colour, str) else colour).save(path)
    return path


def touch(path: Path, mtime: float) -> None:
    os.utime(path, (mtime, mtime))


def gallery(folder: Path) -> Path:
    """Six pictures of one colour each in nested folders."""
    paint(folder / "red.png", "red")
    paint(folder / "a" / "blue.png", "blue")
    paint(folder / "a" / "green.jpg", "green")
    paint(folder / "a" / "deep" / "yellow.png", "yellow")
    paint(folder / "b" / "white.png", "white")
    paint(folder / "b" / "black.bmp", "black")
    return folder
