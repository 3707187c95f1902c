"""Which pictures are the same: byte for byte, or seen by eye.

Two pictures are twins where few bits of their perceptual hashes differ and their colours are nearly equal;
the second guards against plain pictures, whose hashes say little. Twins of twins make one group.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from unicross.hygiene.fingerprints import Fingerprints

Ints = NDArray[np.int64]

MOST_BITS = 10
"""Bits of 64 that may differ in the hashes of twins."""
MOST_COLOUR = 10
"""Mean difference of the colours of twins, of 255."""
COARSE = 16
"""Pictures of one hash whose mean colours fall into one step of this width, of 255, are one."""
AT_ONCE = 4096


def same_bytes(prints: Fingerprints) -> Ints:
    """A number for each picture [P], equal for equal bytes; -1 for those that cannot be read."""
    numbers = np.unique(prints.digest, return_inverse=True)[1].astype(np.int64)
    return np.where(prints.readable, numbers, -1)


def twins(prints: Fingerprints) -> Ints:
    """A number for each picture [P], equal for twins; -1 for those that cannot be read."""
    from scipy.sparse import coo_matrix  # of the same extra as ImageHash, which the prints are taken with
    from scipy.sparse.csgraph import connected_components

    readable = np.flatnonzero(prints.readable)
    numbers = np.full(len(prints.reason), -1, np.int64)
    if not len(readable):
        return numbers
    colours = prints.colours[readable].reshape(len(readable), -1)
    mean = prints.colours[readable].mean(axis=(1, 2)) // COARSE  # [P, 3]
    # Of pictures that hash alike (a thousand placeholders) one stands for all: pairs grow with the square.
    keys = np.concatenate([prints.hash[readable], mean.astype(np.uint8)], axis=1)
    _, first, kind = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    one, other = _near(prints.hash[readable[first]], colours[first])
    edges = coo_matrix((np.ones(len(one), bool), (one, other)), (len(first), len(first)))
    numbers[readable] = connected_components(edges, directed=False)[1][kind.ravel()]
    return numbers


def _near(hashes: NDArray[np.uint8], colours: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """Pairs of pictures whose hashes [K, 8] and colours [K, 768] are nearly equal."""
    index = faiss.IndexBinaryFlat(64)
    index.add(hashes)
    ones, others = [], []
    for start in range(0, len(hashes), AT_ONCE):
        limits, _, found = index.range_search(hashes[start : start + AT_ONCE], MOST_BITS + 1)
        one = np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64)) + start
        forward = found > one
        one, other = one[forward], found[forward]
        for block in range(0, len(one), AT_ONCE):
            a, b = one[block : block + AT_ONCE], other[block : block + AT_ONCE]
            difference = np.abs(colours[a].astype(np.int16) - colours[b]).mean(axis=1)
            ones.append(a[difference <= MOST_COLOUR])
            others.append(b[difference <= MOST_COLOUR])
    empty = [np.zeros(0, np.int64)]
    return np.concatenate(ones or empty), np.concatenate(others or empty)
