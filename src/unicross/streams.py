"""Random streams by name, so that what is drawn for one purpose is never drawn again for another."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, name: str, *numbers: int) -> np.random.Generator:
    """A generator that is equal for equal seed, name and numbers, and unlike for all others.

    `stream(seed, "plan", stage, epoch)`: names say what for, numbers which one. What a run draws follows from
    its seed and from where it stands, so that a resumed run needs no random state.
    """
    digest = hashlib.sha256(repr((int(seed), name, *map(int, numbers))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def draw_seed(rng: np.random.Generator) -> int:
    """A seed for a library that takes a number, from a generator."""
    return int(rng.integers(2**31))
