"""The bank of features, and rounds of clusters."""

import math

import numpy as np
import torch

import tiny
from training_parts import CPU, prepared
from unicross.training.rounds import Bank, new_round

ALL = tiny.SHARPEN | {"losses": {"image_text": 1.0, "image_image": 0.5, "text_text": 0.25}}


def test_the_bank_keeps_unit_features_and_mixes_captions():
    bank = Bank(3, 2, CPU)
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    bank.put(torch.tensor([1]), torch.stack([east, north])[None], east[None, None], torch.tensor([3.0]))
    torch.testing.assert_close(bank.image[1].float(), torch.full((2,), 0.5**0.5), atol=1e-3, rtol=0)
    assert bank.text[1].tolist() == [1.0, 0.0]
    bank.put(torch.tensor([1]), east[None, None], north[None, None], torch.tensor([2.0]))
    assert bank.image[1].tolist() == [1.0, 0.0]  # an image's is replaced
    torch.testing.assert_close(bank.text[1].float(), torch.full((2,), 0.5**0.5), atol=1e-3, rtol=0)
    assert not bank.image[[0, 2]].any()
    assert bank.loss.tolist() == [math.inf, 2.0, math.inf]


def test_a_round_embeds_what_the_bank_lacks_and_is_not_moved_by_later_steps(photos):
    recipe, model, data = prepared(photos, ALL)
    stage, bank = recipe.stages[0], Bank(24, 16, CPU)
    east = torch.eye(16)[:1]
    bank.put(torch.tensor([5]), east[None], east[None], torch.ones(1))
    current, figures, spent = new_round(model, data, stage, bank, seed=0)
    assert spent == {"image": 23, "text": 23 * 3}
    assert current.image[5].tolist() == current.text[5].tolist() == east[0].tolist()
    np.testing.assert_allclose(np.linalg.norm(current.image.astype(np.float32), axis=1), 1, atol=2e-3)
    assert figures == {"clusters": 6, "size_min": 4, "size_max": 4}
    assert sorted(np.bincount(current.cluster)) == [4] * 6
    before = current.image.copy(), current.text.copy()
    bank.put(torch.arange(24), east.expand(24, 1, 16), east.expand(24, 1, 16), torch.ones(24))
    assert np.array_equal(current.image, before[0])
    assert np.array_equal(current.text, before[1])


def test_a_fresh_round_embeds_everything(photos):
    batches = {"kind": "clustered", "cluster_size": 4, "embed": "fresh"}
    recipe, model, data = prepared(photos, ALL | {"batches": batches})
    bank = Bank(24, 16, CPU)
    bank.put(torch.arange(24), torch.ones(24, 1, 16), torch.ones(24, 1, 16), torch.ones(24))
    _, _, spent = new_round(model, data, recipe.stages[0], bank, seed=0)
    assert spent == {"image": 24, "text": 72}
    assert bank.loss.tolist() == [1.0] * 24  # still known
