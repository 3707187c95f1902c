"""The bank of features, and rounds of clusters."""

import numpy as np
import pytest
import torch

from training_parts import ALL, CPU, prepared
from unicross.training.plan import plan_figures
from unicross.training.rounds import Clusters, FeatureBank, new_clusters


def test_the_bank_keeps_unit_features_and_mixes_captions():
    bank = FeatureBank(3, 2, CPU)
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    bank.put(torch.tensor([1]), torch.stack([east, north])[None], east[None, None])
    torch.testing.assert_close(bank.image[1].float(), torch.full((2,), 0.5**0.5), atol=1e-3, rtol=0)
    assert bank.text[1].tolist() == [1.0, 0.0]
    bank.put(torch.tensor([1]), east[None, None], north[None, None])
    assert bank.image[1].tolist() == [1.0, 0.0]  # an image's is replaced
    torch.testing.assert_close(bank.text[1].float(), torch.full((2,), 0.5**0.5), atol=1e-3, rtol=0)
    assert not bank.image[[0, 2]].any()


def test_a_round_embeds_what_the_bank_lacks_and_is_not_moved_by_later_steps(photos):
    _, model, data = prepared(photos, ALL)
    bank = FeatureBank(24, 16, CPU)
    east = torch.eye(16)[:1]
    bank.put(torch.tensor([5]), east[None], east[None])
    clusters, figures, spent = new_clusters(model, data, 4, bank, seed=0)
    assert spent == {"image": 23, "text": 23 * 3}
    assert clusters.image[5].tolist() == clusters.text[5].tolist() == east[0].tolist()
    np.testing.assert_allclose(np.linalg.norm(clusters.image.astype(np.float32), axis=1), 1, atol=2e-3)
    assert figures == {"clusters": 6, "size_min": 4, "size_max": 4}
    assert sorted(np.bincount(clusters.cluster)) == [4] * 6
    before = clusters.image.copy(), clusters.text.copy()
    bank.put(torch.arange(24), east.expand(24, 1, 16), east.expand(24, 1, 16))
    assert np.array_equal(clusters.image, before[0])
    assert np.array_equal(clusters.text, before[1])


def test_what_the_bank_forgot_is_embedded_anew(photos):
    _, model, data = prepared(photos, ALL)
    bank = FeatureBank(24, 16, CPU)
    bank.put(torch.arange(24), torch.ones(24, 1, 16), torch.ones(24, 1, 16))
    assert new_clusters(model, data, 4, bank, seed=0)[2] == {"image": 0, "text": 0}
    bank.forget()
    assert new_clusters(model, data, 4, bank, seed=0)[2] == {"image": 24, "text": 72}


def test_a_plan_is_measured_against_random_batches_and_by_what_is_masked():
    """Two clusters of equal items: in a clustered batch all are twins, in a random one not always."""
    rows = np.repeat(np.eye(2), 4, axis=0).astype(np.float16)
    clusters = Clusters(rows, rows, np.repeat([0, 1], 4))
    plan = [np.arange(4), np.arange(4, 8)]
    figures = plan_figures(plan, clusters, 0.95, 4, np.random.default_rng(0))
    assert (figures["hardness"], figures["masked"]) == (1.0, 1.0)
    assert 0 < figures["hardness_random"] < 1
    mixed = [np.array([0, 1, 4, 5])]  # each has one twin among three
    assert plan_figures(mixed, clusters, 0.95, 4, np.random.default_rng(0))["masked"] == pytest.approx(1 / 3)
    assert "masked" not in plan_figures(plan, clusters, None, 4, np.random.default_rng(0))
