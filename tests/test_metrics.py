"""Metrics against hand-computed matrices and slow, hand-written references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unicross.errors import DataError
from unicross.metrics import (
    mean_average_precision,
    mean_rank,
    median_rank,
    r_sum,
    rank_keys,
    recall_at,
)

# Similarity of 4 images (rows) to 8 captions (columns); caption j belongs to image j // 2.
SIMILARITY = np.array(
    [
        [9, 1, 2, 3, 4, 5, 6, 7],  # own 9, 1: first, last
        [8, 7, 5, 6, 4, 3, 2, 1],  # own 5, 6: third
        [5, 5, 5, 5, 5, 5, 5, 5],  # all equal: behind the six negatives
        [1, 2, 3, 4, 5, 9, 8, 9],  # own 8, 9: tied with a negative 9
    ],
    dtype=np.float32,
)
IMAGE_IDS, CAPTION_IDS = np.arange(4), np.arange(8) // 2


def test_hand_computed_image_to_text():
    ranking = rank_keys(SIMILARITY, np.eye(8, dtype=np.float32), IMAGE_IDS, CAPTION_IDS)
    assert ranking.ranks.tolist() == [1, 3, 7, 2]
    assert ranking.negatives_above.tolist() == [[0, 6], [2, 2], [6, 6], [1, 1]]
    assert ranking.rival.tolist() == [7, 0, 0, 5]
    assert ranking.rival_score.tolist() == [7, 8, 5, 9]
    assert ranking.score.tolist() == [9, 6, 5, 9]
    precision = [(1 / 1 + 2 / 8) / 2, (1 / 3 + 2 / 4) / 2, (1 / 7 + 2 / 8) / 2, (1 / 2 + 2 / 3) / 2]
    np.testing.assert_allclose(ranking.average_precision, 100 * np.array(precision))
    assert mean_average_precision(ranking) == pytest.approx(100 * np.mean(precision))


def test_hand_computed_text_to_image():
    ranking = rank_keys(SIMILARITY.T, np.eye(4, dtype=np.float32), CAPTION_IDS, IMAGE_IDS)
    assert ranking.ranks.tolist() == [1, 4, 2, 1, 2, 3, 1, 1]


def test_summaries():
    ranks = np.array([1, 2, 5, 6, 10, 11, 100, 1])
    assert [recall_at(ranks, k) for k in (1, 5, 10)] == [25.0, 50.0, 75.0]
    assert median_rank(ranks) == 5.5
    assert mean_rank(ranks) == 17.0
    assert r_sum(ranks, np.array([1, 1])) == 450.0


def slow_ahead(similarity, query_ids, key_ids, exclude):
    """[[negatives ahead of each positive, best first]], one comparison at a time."""
    found = []
    for q, scores in enumerate(similarity):
        keys = [k for k in range(len(key_ids)) if exclude is None or k != exclude[q]]
        positives = sorted((scores[k] for k in keys if key_ids[k] == query_ids[q]), reverse=True)
        negatives = [scores[k] for k in keys if key_ids[k] != query_ids[q]]
        found.append([sum(negative >= positive for negative in negatives) for positive in positives])
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    queries=hnp.arrays(np.int8, st.tuples(st.integers(1, 9), st.just(3)), elements=st.integers(-2, 2)),
    keys=hnp.arrays(np.int8, st.tuples(st.integers(4, 14), st.just(3)), elements=st.integers(-2, 2)),
    seed=st.integers(0, 1000),
    own=st.booleans(),
    block=st.tuples(st.integers(1, 10), st.integers(1, 15)),
)
def test_equals_slow_reference_for_any_block(queries, keys, seed, own, block):
    rng = np.random.default_rng(seed)
    key_ids = rng.permutation(np.arange(len(keys)) % max(1, len(keys) // 3))  # at least two keys an id
    query_ids = rng.choice(key_ids, len(queries))
    exclude = rng.integers(len(keys), size=len(queries)) if own else None
    as_float = queries.astype(np.float32), keys.astype(np.float32)
    similarity = (queries.astype(int) @ keys.T.astype(int)).tolist()
    expected = slow_ahead(similarity, query_ids, key_ids, exclude)
    ranking = rank_keys(*as_float, query_ids, key_ids, exclude=exclude, block=block)
    assert [[n for n in row if n >= 0] for row in ranking.negatives_above.tolist()] == expected
    assert ranking.ranks.tolist() == [row[0] + 1 for row in expected]
    for q, rival in enumerate(ranking.rival):
        if rival >= 0:
            assert key_ids[rival] != query_ids[q]
            assert exclude is None or exclude[q] != rival
            negatives = [
                similarity[q][k]
                for k in range(len(keys))
                if key_ids[k] != query_ids[q] and (exclude is None or exclude[q] != k)
            ]
            assert ranking.rival_score[q] == max(negatives) == similarity[q][rival]


def test_equal_vectors_tie_in_spite_of_float_noise():
    """Copies of the positive are spread over blocks of every shape; each of them must rank before it."""
    rng = np.random.default_rng(0)
    vector = rng.normal(size=257).astype(np.float32)
    vector /= np.linalg.norm(vector)
    other = rng.normal(size=257).astype(np.float32)
    query = (vector + 0.1 * other / np.linalg.norm(other))[None]
    keys = np.repeat(vector[None], 101, axis=0)
    for columns in (1, 3, 7, 64, 101):
        ranking = rank_keys(query, keys, np.array([50]), np.arange(101), block=(1, columns))
        assert ranking.ranks.tolist() == [101]


def test_a_difference_above_noise_counts():
    keys = np.array([[1.0, 0.0], [0.99998, 0.0]], dtype=np.float32)
    ranking = rank_keys(np.array([[1.0, 0.0]]), keys, np.array([0]), np.array([0, 1]))
    assert ranking.ranks.tolist() == [1]


def test_order_of_keys_changes_no_rank():
    rng = np.random.default_rng(1)
    queries, keys = rng.normal(size=(20, 8)), rng.normal(size=(60, 8))
    key_ids, order = np.arange(60) % 20, rng.permutation(60)
    plain = rank_keys(queries, keys, np.arange(20), key_ids)
    shuffled = rank_keys(queries, keys[order], np.arange(20), key_ids[order], block=(7, 13))
    assert (plain.negatives_above == shuffled.negatives_above).all()
    assert (plain.rival == order[shuffled.rival]).all()


def test_all_keys_positive_has_no_rival():
    ranking = rank_keys(np.ones((1, 2)), np.ones((3, 2)), np.zeros(1, int), np.zeros(3, int))
    assert ranking.ranks.tolist() == [1]
    assert ranking.rival.tolist() == [-1]
    assert ranking.average_precision.tolist() == [100.0]


def test_values_that_are_not_finite_are_refused():
    keys = np.ones((3, 2))
    keys[1, 0] = np.nan
    with pytest.raises(
        DataError, match="1 of 3 keys hold values that are not finite, the first at position 1"
    ):
        rank_keys(np.ones((1, 2)), keys, np.zeros(1, int), np.zeros(3, int))
    with pytest.raises(DataError, match="queries"):
        rank_keys(np.full((1, 2), np.inf), np.ones((3, 2)), np.zeros(1, int), np.zeros(3, int))


def test_query_without_positive_is_refused():
    with pytest.raises(DataError, match="query 2 "):
        rank_keys(np.ones((3, 2)), np.ones((2, 2)), np.array([0, 1, 7]), np.array([0, 1]), block=(2, 2))
    with pytest.raises(DataError, match="query 1 "):
        rank_keys(
            np.ones((2, 2)), np.ones((3, 2)), np.array([0, 1]), np.array([0, 0, 1]), exclude=np.array([0, 2])
        )
    with pytest.raises(DataError, match="no queries"):
        rank_keys(np.ones((0, 2)), np.ones((2, 2)), np.array([], int), np.array([0, 1]))
