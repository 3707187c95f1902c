"""Paired bootstrap intervals against cases whose answer is known."""

import numpy as np
import pytest

from unicross.compare.intervals import (
    compared_metrics,
    owners_of,
    paired_bootstrap,
    paired_difference,
    per_cluster,
    per_item,
    ranks_of,
)
from unicross.evaluation import evaluate_embeddings


def evaluated(noise, seeds=(0, 1)):
    """Results of one side, and whose each query is: items with one to four captions and images each."""
    text_item, image_item = (
        np.sort(np.concatenate([np.arange(20), np.random.default_rng(seed).integers(20, size=33)]))
        for seed in (9, 8)
    )
    results = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        items = rng.normal(size=(20, 4))
        texts, images = (items[of] + noise * rng.normal(size=(53, 4)) for of in (text_item, image_item))
        results.append(evaluate_embeddings(images, texts, text_item, image_item=image_item))
    return results, owners_of(results[0])


def test_values_per_item_average_to_the_metric():
    results, owners = evaluated(1.0)
    metrics = compared_metrics(ranks_of(results))
    assert {"i2i/R@1", "t2t/R@10", "rsum_all"} < set(metrics)
    for name in metrics:
        values = per_item(ranks_of(results), owners, name)
        assert values.shape == (2, 20)
        assert values.mean(axis=1) == pytest.approx([r.metrics[name] for r in results]), name


def test_paired_difference_is_that_of_the_metrics():
    (worse, owners), (better, _) = evaluated(1.5), evaluated(0.2, seeds=(0, 1, 2))
    differences = paired_difference(ranks_of(worse), ranks_of(better), owners)
    assert list(differences) == compared_metrics(ranks_of(worse))
    for name, difference in differences.items():
        means = [np.mean([r.metrics[name] for r in side]) for side in (worse, better)]
        assert difference.mean == pytest.approx(means[1] - means[0]), name
        assert difference.low <= difference.mean <= difference.high
    assert differences["rsum"].low > 0
    assert paired_difference(ranks_of(worse), ranks_of(better), owners, ["rsum"]) == {
        "rsum": differences["rsum"]
    }


def test_paired_difference_of_a_side_and_itself_is_none():
    results, owners = evaluated(1.0, seeds=(0,))
    itself = paired_difference(ranks_of(results), ranks_of(results), owners)["rsum"]
    assert (itself.mean, itself.low, itself.high) == (0, 0, 0)


def test_per_cluster_keeps_the_mean():
    values, clusters = np.array([1.0, 0.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 1, 1])
    by_image = per_cluster(values, clusters, 2)
    assert by_image.tolist() == pytest.approx([1 * 2 / 5, 2 * 2 / 5])
    assert by_image.mean() == pytest.approx(values.mean())


def test_paired_bootstrap_pairs_the_images():
    """A steady gain on images of very different difficulty is sure, however wide the runs' own intervals."""
    difficulty = np.random.default_rng(0).normal(50, 30, size=(1, 200))
    found = paired_bootstrap(difficulty, difficulty + 1.0, np.random.default_rng(1))
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_paired_bootstrap_sees_the_seeds():
    """Two seeds that disagree by 10 everywhere: the images are sure of the difference, the seeds are not."""
    a, b = np.zeros((2, 300)), np.array([[0.0], [10.0]]) + np.zeros((2, 300))
    found = paired_bootstrap(a, b, np.random.default_rng(0))
    assert (found.mean, found.low, found.high) == pytest.approx((5.0, 0.0, 10.0))


def test_paired_bootstrap_of_independent_images_matches_theory():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(1, 1000)), rng.normal(0.5, 1, size=(1, 1000))
    found = paired_bootstrap(a, b, np.random.default_rng(0))
    half = 1.96 * (b - a).std() / np.sqrt(1000)
    assert found.mean == pytest.approx((b - a).mean())
    assert found.low == pytest.approx(found.mean - half, abs=0.01)
    assert found.high == pytest.approx(found.mean + half, abs=0.01)
    narrow = paired_bootstrap(a, b, np.random.default_rng(0), level=0.5)
    assert found.low < narrow.low < narrow.high < found.high
    assert paired_bootstrap(a, b, np.random.default_rng(0)) == found


def test_paired_bootstrap_takes_different_numbers_of_seeds():
    rng = np.random.default_rng(4)
    found = paired_bootstrap(rng.normal(size=(3, 50)), rng.normal(5, 1, size=(1, 50)), rng)
    assert found.low > 4
