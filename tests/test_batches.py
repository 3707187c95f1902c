"""Batch plans: who meets whom, once an epoch, equal for equal seeds, and harder where they should be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicross.batches import (
    clustered_batches,
    false_negatives,
    hardness,
    random_batches,
    uni_modal_batches,
)
from unicross.clustering import balanced_clusters, normalise


def clusters_of(count, size):
    items = np.random.default_rng(0).permutation(count) + 100
    return [items[start : start + size] for start in range(0, count, size)]


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(plan):
    return np.concatenate(plan).tolist()


@given(count=st.integers(1, 50), size=st.integers(1, 12), seed=st.integers(0, 9))
def test_random_batches_use_each_item_at_most_once(count, size, seed):
    items = np.arange(count) + 7
    plan = random_batches(items, size, rng(seed))
    used = flat(plan)
    assert len(set(used)) == len(used)
    assert set(used) <= set(items.tolist())
    assert [len(batch) for batch in plan] == [min(size, count)] * max(1, count // size)


def test_no_items_make_no_batches():
    assert random_batches(np.zeros(0, np.int64), 4, rng()) == []


@given(
    count=st.integers(2, 80),
    cluster=st.integers(1, 6),
    room=st.integers(0, 10),
    fit=st.integers(1, 3),
    random_fraction=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 9),
)
def test_clustered_plans_are_whole_epochs_of_full_batches(count, cluster, room, fit, random_fraction, seed):
    """As many batches as random ones would be (the schedule counts on it), no item twice."""
    batch = cluster * fit + room
    plan = clustered_batches(clusters_of(count, cluster), batch, rng(seed), random_fraction=random_fraction)
    used = flat(plan)
    assert len(set(used)) == len(used)
    assert set(used) <= set(range(100, 100 + count))
    assert [len(b) for b in plan] == [min(batch, count)] * max(1, count // batch)


def whole_clusters(batch, clusters):
    return sum(set(cluster.tolist()) <= set(batch.tolist()) for cluster in clusters)


def test_a_batch_packs_as_many_clusters_as_fit():
    clusters = clusters_of(48, 4)
    for batch in clustered_batches(clusters, 12, rng()):
        assert whole_clusters(batch, clusters) == 3


def test_room_that_no_whole_cluster_fits_into_is_filled_from_other_clusters():
    clusters = clusters_of(100, 5)
    plan = clustered_batches(clusters, 12, rng())
    assert [len(batch) for batch in plan] == [12] * 8
    assert [whole_clusters(batch, clusters) for batch in plan] == [2] * 8


@pytest.mark.parametrize(("fraction", "clustered"), [(0.0, 8), (0.25, 6), (1.0, 0)])
def test_random_fraction_is_the_share_of_random_batches(fraction, clustered):
    clusters = clusters_of(96, 6)
    plan = clustered_batches(clusters, 12, rng(), random_fraction=fraction)
    assert sum(whole_clusters(batch, clusters) == 2 for batch in plan) == clustered


def test_equal_seeds_give_equal_plans_and_others_do_not():
    def plan(seed):
        return clustered_batches(clusters_of(60, 4), 12, rng(seed), random_fraction=0.25)

    assert flat(plan(1)) == flat(plan(1)) != flat(plan(2))
    items = np.arange(40)
    assert flat(random_batches(items, 8, rng(1))) == flat(random_batches(items, 8, rng(1)))
    assert flat(random_batches(items, 8, rng(1))) != flat(random_batches(items, 8, rng(2)))


def test_clustered_batches_are_harder_than_random_ones():
    """Embeddings in 12 loose groups: negatives of a clustered batch are mostly of the anchor's own group."""
    generator = rng(3)
    group = generator.permutation(np.repeat(np.arange(12), 8))
    centres = generator.standard_normal((12, 16))
    images = normalise(centres[group] + 0.5 * generator.standard_normal((96, 16)))
    texts = normalise(centres[group] + 0.5 * generator.standard_normal((96, 16)))
    clusters = balanced_clusters(np.concatenate([images, texts], axis=1), 8, seed=0)
    random = hardness(random_batches(np.arange(96), 16, rng()), images, texts)
    clustered = hardness(clustered_batches(clusters, 16, rng()), images, texts)
    half = hardness(clustered_batches(clusters, 16, rng(), random_fraction=0.5), images, texts)
    assert clustered > random + 0.2
    assert random < half < clustered


def test_hardness_is_the_mean_over_all_ordered_negatives():
    """By hand: texts equal the images; off-diagonal products of the three are 0.6, 0 and 0.8."""
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]])
    whole, nobody = np.arange(3), np.array([1])
    assert hardness([whole], vectors, vectors) == pytest.approx((0.6 + 0 + 0.8) / 3)
    assert hardness([np.array([0, 1]), np.array([2, 1])], vectors, vectors) == pytest.approx(0.7)
    assert np.isnan(hardness([nobody], vectors, vectors))


def test_uni_modal_batches_use_everything_once():
    pairs, images, texts = np.arange(10), np.arange(10, 30), np.arange(30, 35)
    plan = uni_modal_batches(pairs, images, texts, 8, rng())
    assert sorted(flat(plan)) == list(range(35))
    assert len(plan) == -(-30 // 8)
    for batch in plan:
        assert 7 <= sum(item < 30 for item in batch) <= 8 + 1  # images: the batch size, to rounding
    assert flat(plan) == flat(uni_modal_batches(pairs, images, texts, 8, rng()))


def test_false_negatives_by_hand():
    """Rows are images, columns texts; guard 0.9.

    Positives .8, .5, .9 -> limits .72, .45, .81. Masked: (0, 1) as .46 exceeds text 1's limit; (1, 0) as .73
    exceeds both; (0, 2) .71 is below both of its limits; (2, 1) .44 too.
    """
    similarity = np.array([[0.8, 0.46, 0.71], [0.73, 0.5, 0.1], [0.0, 0.44, 0.9]])
    masked = false_negatives(similarity, np.eye(3), 0.9)  # texts are axes: products are the rows themselves
    assert masked.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_an_anchor_that_does_not_match_itself_masks_nothing():
    similarity = np.array([[-0.2, 0.5], [0.1, 0.6]])
    assert not false_negatives(similarity, np.eye(2), 0.95)[1, 0]
    assert not false_negatives(np.array([[-0.2, 0.3], [0.1, 0.4]]), np.eye(2), 0.95).any()


def test_exact_twins_are_masked_and_the_diagonal_never_is():
    twins = normalise(np.array([[1.0, 0.2], [1.0, 0.2], [-1.0, 0.5]])).astype(np.float16)
    masked = false_negatives(twins, twins, 0.95)
    assert masked.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
