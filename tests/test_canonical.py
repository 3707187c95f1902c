"""Heads in closed form."""

import numpy as np
import torch
from torch.nn import functional as F

from unicross.canonical import Pairs, canonical_heads

RNG = np.random.default_rng(0)
MIXED = {"image": RNG.standard_normal((6, 30)), "text": RNG.standard_normal((6, 20))}
"""How six things that pictures and texts share lie in the features of two towers."""
LOUD = {"image": RNG.standard_normal((4, 30)), "text": RNG.standard_normal((4, 20))}
"""What either tower says besides, of its own."""


def features(count, seed):
    """Features of pictures and texts that belong together."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((count, 6))
    return {
        tower: (shared @ MIXED[tower] + 0.7 * rng.standard_normal((count, 4)) @ LOUD[tower] + 100).astype(
            np.float32
        )
        for tower in MIXED
    }


def found(shown, heads):
    """Share of pictures whose text is the nearest."""
    image, text = (
        F.normalize(torch.from_numpy(rows) @ head.T, dim=1)
        for rows, head in zip(shown.values(), heads, strict=True)
    )
    return float(((image @ text.T).argmax(dim=1) == torch.arange(len(image))).double().mean())


def fitted(pairs, dim=16):
    image, text = (Pairs(rows, rows) for rows in pairs.values())
    return canonical_heads(image, text, dim, np.random.default_rng(1))


def test_pairs_that_were_never_seen_are_found():
    heads = fitted(features(1000, 1))
    assert found(features(200, 2), heads) > 0.6


def test_few_pairs_with_many_features_are_not_learned_by_heart():
    """Without the shrinkage, thirty pairs fit in thirty dimensions whatever they are."""
    few = features(30, 1)
    assert 0.2 < found(features(200, 2), fitted(few)) < found(few, fitted(few)) < 1


def test_what_all_features_have_in_common_is_nothing_to_a_head():
    pairs = features(200, 1)
    pairs["text"][:, 5] = 7  # a feature that never varies, nor does the mean
    for rows, head in zip(pairs.values(), fitted(pairs), strict=True):
        mean = torch.from_numpy(rows.mean(axis=0))
        assert float((head @ mean).norm() / mean.norm()) < 1e-4


def test_a_head_is_as_large_as_a_new_one_and_no_dimension_is_empty():
    pairs = features(200, 1)
    for head, width in zip(fitted(pairs, dim=64), (30, 20), strict=True):
        assert head.shape == (64, width)
        assert torch.isclose(head.square().sum(dim=1).mean(), torch.tensor(1.0))
        assert head.norm(dim=1).min() > 0.1


def test_more_dimensions_than_a_tower_has_change_no_cosine():
    pairs, new = features(200, 1), features(50, 3)
    cosines = []
    for dim in (20, 64):
        image, text = (
            F.normalize(torch.from_numpy(rows) @ head.T, dim=1)
            for rows, head in zip(new.values(), fitted(pairs, dim=dim), strict=True)
        )
        cosines.append(image @ text.T)
    assert torch.allclose(*cosines, atol=1e-3)
