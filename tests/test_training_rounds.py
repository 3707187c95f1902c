"""The bank of features, and rounds of clusters."""

import numpy as np
import pytest
import torch

from training_parts import ALL, CPU, prepared
from unicross.training.plan import epoch_plan, plan_figures
from unicross.training.rounds import Clusters, FeatureBank, Round, embed_pairs, new_clusters, wrong_among


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
    image, text, spent = embed_pairs(model, data, bank)
    clusters, figures = new_clusters(data.pairs, image, text, 4, seed=0)
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
    assert embed_pairs(model, data, bank)[2] == {"image": 0, "text": 0}
    bank.forget()
    assert embed_pairs(model, data, bank)[2] == {"image": 24, "text": 72}


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


def planted(items: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of images and texts that lie near them; the first few texts are each other's."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(items, 24))
    texts = images + 0.5 * rng.normal(size=images.shape)
    texts[:wrong] = np.roll(texts[:wrong], 1, axis=0)
    return tuple((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16) for x in (images, texts))


@pytest.mark.parametrize("wrong", [0, 20, 60, 180])
def test_pairs_that_look_wrong_are_those_that_were_planted(wrong: int):
    images, texts = planted(300, wrong)
    found = wrong_among(np.arange(300), images, texts, seed=0)
    assert len(np.setdiff1d(found, np.arange(wrong))) <= 3
    assert len(np.intersect1d(found, np.arange(wrong))) >= 0.9 * wrong


def test_a_model_that_knows_nothing_leaves_no_pair_out():
    images, texts = planted(300, 300)
    assert not len(wrong_among(np.arange(300), images, texts, seed=0))
    assert not len(wrong_among(np.arange(8), images, texts, seed=0))  # too few to say


@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_suspects_are_in_no_batch_and_the_epoch_is_as_long(photos, kind: str):
    recipe, model, data = prepared(photos, ALL | {"batches": {"kind": kind, "drop_suspects": True}})
    image, text, _ = embed_pairs(model, data, FeatureBank(24, 16, CPU))
    suspects = np.arange(3, 15)
    clusters, _ = new_clusters(np.setdiff1d(data.pairs, suspects), image, text, 4, seed=0)
    round_ = Round(clusters if kind == "clustered" else None, suspects)
    plan = epoch_plan(data, recipe.stages[0], 0, 8, round_, np.random.default_rng(0))
    assert len(plan) == 3
    assert not len(np.intersect1d(np.concatenate(plan), suspects))
    again = Round.from_state_dict(round_.state_dict())
    assert again.suspects is not None
    assert np.array_equal(again.suspects, suspects)
