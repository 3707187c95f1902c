"""Balanced clusters: sizes, partition, determinism, nearness; also by way of coarse clusters first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unicross import clustering
from unicross.clustering import balanced_clusters, nearest, normalise, spherical_kmeans


def blobs(groups, each, dim, seed, spread=0.05):
    """Rows of `groups` well separated directions, shuffled, and the group of each row."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(groups), each))
    centres = normalise(rng.standard_normal((groups, dim)))
    return (centres[label] + spread * rng.standard_normal((len(label), dim))).astype(np.float32), label


def check_partition(groups, count, size):
    assert sorted(np.concatenate(groups).tolist()) == list(range(count))
    sizes = [len(group) for group in groups]
    assert len(groups) == -(-count // size)
    assert max(sizes) <= size
    assert sum(s < size for s in sizes) <= 1


@settings(max_examples=40)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 12),
    limit=st.sampled_from([2, 1024]),
    seed=st.integers(0, 99),
)
def test_every_row_is_in_one_cluster_and_all_but_one_are_full(count, size, limit, seed):
    vectors = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clustering, "FLAT_LIMIT", limit)
        check_partition(balanced_clusters(vectors, size, seed=seed), count, size)


@pytest.mark.parametrize("limit", [2, 1024])
def test_equal_vectors_are_cut_without_end(limit, monkeypatch):
    """A collapsed tower gives every item one embedding; nothing tells the items apart."""
    monkeypatch.setattr(clustering, "FLAT_LIMIT", limit)
    check_partition(balanced_clusters(np.ones((50, 3), np.float32), 4, seed=0), 50, 4)
    check_partition(balanced_clusters(np.zeros((50, 3), np.float32), 4, seed=0), 50, 4)


def test_well_separated_groups_become_the_clusters():
    vectors, label = blobs(groups=6, each=8, dim=16, seed=1)
    groups = balanced_clusters(vectors, 8, seed=0)
    pure = sum(len(set(label[group])) == 1 for group in groups)
    assert pure >= 4  # k-means may join two directions and cut a third; random groups are never pure


def test_coarse_clusters_first_keep_near_rows_together(monkeypatch):
    vectors, label = blobs(groups=16, each=8, dim=16, seed=2)

    def purity(groups):
        return np.mean([np.bincount(label[group]).max() / len(group) for group in groups])

    flat = purity(balanced_clusters(vectors, 8, seed=0))
    monkeypatch.setattr(clustering, "FLAT_LIMIT", 4)
    two_level = purity(balanced_clusters(vectors, 8, seed=0))
    chance = purity(np.split(np.random.default_rng(0).permutation(128), 16))
    assert flat > 0.8
    assert two_level > 0.7
    assert chance < 0.4


@pytest.mark.parametrize("limit", [3, 1024])
def test_equal_seeds_give_equal_clusters_and_others_do_not(limit, monkeypatch):
    monkeypatch.setattr(clustering, "FLAT_LIMIT", limit)
    vectors = np.random.default_rng(3).standard_normal((80, 8)).astype(np.float32)
    first, again, other = (balanced_clusters(vectors, 7, seed=seed) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_only_directions_count():
    vectors, _ = blobs(groups=5, each=4, dim=8, seed=4)
    scaled = vectors * np.random.default_rng(5).uniform(0.1, 10, (20, 1)).astype(np.float32)
    for a, b in zip(balanced_clusters(vectors, 4, seed=0), balanced_clusters(scaled, 4, seed=0), strict=True):
        assert set(a) == set(b)


def test_a_full_cluster_keeps_the_nearest_of_those_that_ask():
    """Three rows want the first centroid, which has room for two: the farthest of them goes elsewhere."""
    rows = normalise(np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5], [0.0, 1.0]]))
    centroids = normalise(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assigned = clustering._assign_balanced(rows, centroids, 2)
    assert assigned.tolist() == [0, 0, 1, 1]


def test_kmeans_centroids_have_unit_length_and_half_precision_is_taken():
    vectors, label = blobs(groups=3, each=10, dim=8, seed=6)
    rows = normalise(vectors.astype(np.float16))
    assert rows.dtype == np.float32
    centroids = spherical_kmeans(rows, 3, seed=0)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)
    cosine, found = nearest(rows, centroids, 1)
    assert cosine.min() > 0.9
    assert len({(a, b) for a, b in zip(label, found[:, 0], strict=True)}) == 3
