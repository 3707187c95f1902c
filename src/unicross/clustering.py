"""Small balanced clusters of embeddings, for batches whose negatives are hard.

Spherical k-means (Dhillon & Modha 2001) by faiss, then a balanced assignment: every cluster holds `size`
items (one may hold fewer), so that clusters pack into batches without remainder. Large sets are first cut
into coarse clusters and each of those into small ones, so that the cost grows with n, not n * n.

Letters: N vectors, D dimensions, C clusters.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

FLAT_LIMIT = 2048
"""Most clusters found in one k-means; above, a coarse one comes first (measured in docs/benchmarks.md)."""


def normalise(vectors: NDArray[np.floating]) -> Floats:
    """Rows at unit length; a zero row stays zero. [N, D] -> [N, D] float32."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def spherical_kmeans(vectors: Floats, k: int, *, seed: int, iterations: int = 15) -> Floats:
    """Centroids of a spherical k-means. [N, D] unit rows -> [k, D] unit rows.

    Trains on a sample of at most 64 vectors a centroid. Needs 1 <= k <= N.
    """
    assert 1 <= k <= len(vectors)
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=iterations,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=64,
    )
    kmeans.train(vectors)
    assert kmeans.centroids is not None
    return normalise(kmeans.centroids)


def nearest(vectors: Floats, centroids: Floats, m: int) -> tuple[Floats, Indices]:
    """The m most similar centroids of each vector: cosines [N, m] and indices [N, m], best first."""
    return faiss.knn(vectors, centroids, min(m, len(centroids)), metric=faiss.METRIC_INNER_PRODUCT)


def balanced_clusters(vectors: NDArray[np.floating], size: int, *, seed: int) -> list[Indices]:
    """Cut N vectors into ceil(N / size) groups of near ones, each of exactly `size` but perhaps one.

    Args:
        vectors: [N, D], any length; compared by cosine.
        size: items a cluster.
        seed: of the k-means; equal seeds give equal clusters on one machine.

    Returns:
        Lists of row indices. Every row is in exactly one.
    """
    rows = normalise(vectors)
    everything = np.arange(len(rows), dtype=np.int64)
    groups = _split(rows, everything, size, seed)
    whole = [group for group in groups if len(group) == size]
    rest = [group for group in groups if len(group) < size]
    if len(rest) > 1:  # one remainder for each coarse cluster: join them and cut anew
        left = np.concatenate(rest)
        whole += [left[start : start + size] for start in range(0, len(left), size)]
        rest = []
    return whole + rest


def _split(rows: Floats, members: Indices, size: int, seed: int) -> list[Indices]:
    """Clusters of `members`, by way of coarse ones where there would be too many; at most one short each."""
    count = -(-len(members) // size)
    if count <= 1:
        return [members]
    if count > FLAT_LIMIT:
        coarse = -(-count // FLAT_LIMIT)
        _, nearest_coarse = nearest(rows, spherical_kmeans(rows, coarse, seed=seed), 1)
        parts = [np.flatnonzero(nearest_coarse[:, 0] == c) for c in range(coarse)]
        if max(map(len, parts)) == len(members):  # one direction only: nothing tells them apart
            return [members[start : start + size] for start in range(0, len(members), size)]
        return [g for part in parts if len(part) for g in _split(rows[part], members[part], size, seed)]
    centroids = spherical_kmeans(rows, count, seed=seed)
    assigned = _assign_balanced(rows, centroids, size)
    order = np.argsort(assigned, kind="stable")
    bounds = np.searchsorted(assigned[order], np.arange(1, count))
    return [members[group] for group in np.split(order, bounds) if len(group)]


def _assign_balanced(rows: Floats, centroids: Floats, size: int) -> Indices:
    """A centroid for each row, at most `size` rows a centroid, near ones preferred. [N, D], [C, D] -> [N].

    Rounds of proposals: every free row asks its nearest centroid that has room, and a centroid takes the
    nearest of those that ask. The last centroid by index is left short where N is no multiple of `size`.
    """
    count = len(centroids)
    room = np.full(count, size, dtype=np.int64)
    room[-1] -= count * size - len(rows)
    assigned = np.full(len(rows), -1, dtype=np.int64)
    free = np.arange(len(rows), dtype=np.int64)
    while len(free):
        open_centroids = np.flatnonzero(room)
        similarity, choice = nearest(rows[free], np.ascontiguousarray(centroids[open_centroids]), 1)
        asked = open_centroids[choice[:, 0]]  # [F]
        order = np.lexsort((-similarity[:, 0], asked))  # by centroid, nearest first
        starts = np.searchsorted(asked[order], asked[order])
        accepted = np.arange(len(order)) - starts < room[asked[order]]
        winners = order[accepted]
        assigned[free[winners]] = asked[winners]
        room -= np.bincount(asked[winners], minlength=count)
        free = np.delete(free, winners)
    return assigned
