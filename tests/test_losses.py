"""Losses against slow independent loops, and the losses of the literature as special cases."""

import itertools
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from unicross.losses import (
    Shares,
    cross_modal,
    info_nce,
    sample_weights,
    sigmoid,
    sigmoid_of_share,
    uni_modal,
)


def symmetric(*args):
    """CLIP's loss."""
    of_images, of_texts = cross_modal(*args)
    return (of_images.mean() + of_texts.mean()) / 2


def unit_rows(rows, dim, seed):
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def slow_info_nce(similarities, positive, ignored):
    """By the definition, one query, one positive, one exponential at a time."""
    queries = []
    for row, matches, left_out in zip(similarities, positive, ignored, strict=True):
        keys = [j for j in range(len(row)) if matches[j] or not left_out[j]]
        mine = [j for j in keys if matches[j]]
        others = sum(math.exp(row[j]) for j in keys if not matches[j])
        queries.append(
            sum(-math.log(math.exp(row[j]) / (math.exp(row[j]) + others)) for j in mine) / len(mine)
        )
    return queries


def assert_equals(found, slow):
    """Each loss to the rounding of float32 logits, and their mean."""
    assert found.tolist() == pytest.approx(slow, rel=1e-5, abs=1e-5)
    assert found.mean().item() == pytest.approx(sum(slow) / len(slow), rel=1e-5, abs=1e-6)


@given(
    queries=st.integers(1, 6),
    keys=st.integers(1, 6),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_info_nce_equals_the_definition_term_by_term(queries, keys, temperature, seed):
    rng = np.random.default_rng(seed)
    similarities = rng.uniform(-1, 1, (queries, keys)) / temperature
    positive = rng.random((queries, keys)) < 0.3
    positive[np.arange(queries), rng.integers(0, keys, queries)] = True
    ignored = rng.random((queries, keys)) < 0.3
    found = info_nce(torch.tensor(similarities), torch.tensor(positive), torch.tensor(ignored))
    assert_equals(found, slow_info_nce(similarities, positive, ignored))


@pytest.mark.parametrize("masking", [False, True])
@pytest.mark.parametrize("image_ids", [[0, 1, 2, 3], [0, 0, 1, 1], [3, 1, 3, 2]])
@pytest.mark.parametrize("text_ids", [[0, 1, 2, 3], [0, 1, 1, 2, 3, 3, 0]])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_cross_modal_equals_two_slow_directions(image_ids, text_ids, temperature, masking):
    image_ids = [i for i in image_ids if i in text_ids]
    text_ids = [t for t in text_ids if t in image_ids]
    images, texts = unit_rows(len(image_ids), 5, 1), unit_rows(len(text_ids), 5, 2)
    masked = (
        torch.rand(len(images), len(texts), generator=torch.Generator().manual_seed(3)) < 0.4
        if masking
        else None
    )
    found = cross_modal(
        images, texts, torch.tensor(image_ids), torch.tensor(text_ids), 1 / temperature, masked
    )
    similarities = [[sum(a * b).item() / temperature for b in texts] for a in images]
    positive = [[i == t for t in text_ids] for i in image_ids]
    ignored = masked.tolist() if masked is not None else [[False] * len(texts)] * len(images)
    turned = [list(map(list, zip(*rows, strict=True))) for rows in (similarities, positive, ignored)]
    for losses, ways in zip(found, ((similarities, positive, ignored), turned), strict=True):
        assert_equals(losses, slow_info_nce(*ways))


@pytest.mark.parametrize("masking", [False, True])
@pytest.mark.parametrize("ids", [[0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 0, 1, 0, 2, 1, 1]])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_uni_modal_equals_a_slow_loop_over_all_others(ids, temperature, masking):
    features = unit_rows(len(ids), 5, 4)
    count = len(ids)
    masked = torch.rand(count, count, generator=torch.Generator().manual_seed(5)) < 0.4 if masking else None
    found = uni_modal(features, torch.tensor(ids), temperature, masked)
    similarities = [[sum(a * b).item() / temperature for b in features] for a in features]
    positive = [[i != j and ids[i] == ids[j] for j in range(count)] for i in range(count)]
    ignored = [
        [i == j or (masked is not None and bool(masked[i, j])) for j in range(count)] for i in range(count)
    ]
    assert_equals(found, slow_info_nce(similarities, positive, ignored))


def test_clip_loss_is_the_special_case_of_one_positive():
    images, texts, ids = unit_rows(6, 8, 6), unit_rows(6, 8, 7), torch.arange(6)
    logits = images @ texts.T / 0.07
    clip = (F.cross_entropy(logits, ids) + F.cross_entropy(logits.T, ids)) / 2
    torch.testing.assert_close(symmetric(images, texts, ids, ids, 1 / 0.07), clip)


def test_nt_xent_is_the_special_case_of_two_views():
    """SimCLR's loss: 2N anchors, the other view the positive, 2N - 2 negatives."""
    n, temperature = 5, 0.1
    features = unit_rows(2 * n, 8, 8)
    logits = features @ features.T / temperature
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -1e9)
    other_view = torch.arange(2 * n).roll(n)
    nt_xent = F.cross_entropy(logits, other_view)
    found = uni_modal(features, torch.arange(n).repeat(2), temperature)
    torch.testing.assert_close(found.mean(), nt_xent)


def test_captions_of_one_image_are_never_each_others_negatives():
    """Nor is the nearer one pushed away for the other's sake, and without negatives they cost nothing."""
    image, texts = unit_rows(1, 4, 9), unit_rows(3, 4, 10).requires_grad_()
    ids = torch.tensor([7, 7, 8])
    alone = symmetric(image, texts[:2], ids[:1], ids[:2], 100.0)
    assert alone.item() == 0
    of_image, _ = cross_modal(image, texts, ids[:1], ids, 100.0)
    of_image.sum().backward()
    assert texts.grad is not None
    towards = (texts.grad * image).sum(dim=1)
    assert (towards[:2] <= 0).all()  # descent brings both captions nearer
    assert towards[2] > 0


def test_uniform_similarities_cost_the_logarithm_of_the_number_of_keys():
    same = torch.ones(4, 3) / math.sqrt(3)
    assert symmetric(same, same, torch.arange(4), torch.arange(4), 10.0).item() == pytest.approx(math.log(4))
    ids = torch.tensor([0, 0, 1, 1])
    assert uni_modal(same, ids, 0.1).tolist() == pytest.approx(
        [math.log(3)] * 4, rel=1e-6
    )  # 1 and 2 negatives


def test_masked_pairs_get_no_gradient():
    images, texts, ids = unit_rows(3, 4, 11), unit_rows(3, 4, 12).requires_grad_(), torch.arange(3)
    masked = torch.zeros(3, 3, dtype=torch.bool)
    masked[0, 1] = masked[2, 1] = True  # text 1 is a presumed match of images 0 and 2
    symmetric(images, texts, ids, ids, 1.0, masked).backward()
    alone = symmetric(images[1:2], texts[1:2], ids[1:2], ids[1:2], 1.0)
    assert texts.grad is not None
    assert alone.item() == 0.0
    others = (images[1:2] @ texts.T).softmax(-1)  # text 1 moves by image 1's row only: (p - 1) / 3 / 2
    torch.testing.assert_close(texts.grad[1], (others[0, 1] - 1) * images[1] / 6)


def test_half_precision_features_are_judged_in_float32():
    features = unit_rows(8, 16, 13)
    ids = torch.arange(4).repeat(2)
    exact = uni_modal(features, ids, 0.01)
    rough = uni_modal(features.bfloat16(), ids, 0.01)
    assert rough.dtype == torch.float32
    assert rough.mean().item() == pytest.approx(exact.mean().item(), rel=0.05)


# -- batches that stand for a gallery ---------------------------------------------------------------


@pytest.mark.parametrize(("size", "per_batch"), [(1, 4), (2, 2), (2, 3), (3, 2)])
def test_weighted_batches_estimate_the_softmax_of_the_whole_gallery(size, per_batch):
    """Over all batches of whole clusters that hold an anchor, the mean denominator is the gallery's."""
    cluster = torch.arange(12) // size
    images, texts = unit_rows(12, 4, 0), unit_rows(12, 4, 1)
    ids = torch.arange(12)
    totals = [[], []]  # by direction: [item] -> denominators met
    for direction in totals:
        direction += [[] for _ in range(12)]
    for met in combinations(range(12 // size), per_batch):
        items = torch.isin(cluster, torch.tensor(met)).nonzero()[:, 0]
        weights = sample_weights(cluster[items], 12)
        losses = cross_modal(images[items], texts[items], ids[items], ids[items], 5.0, log_weights=weights)
        for found, direction in zip(losses, totals, strict=True):
            positive = 5 * (images[items] * texts[items]).sum(dim=1)
            for item, total in zip(items.tolist(), (found + positive).exp().tolist(), strict=True):
                direction[item].append(total)
    logits = (5.0 * images @ texts.T).exp()
    for direction, whole in zip(totals, (logits.sum(dim=1), logits.sum(dim=0)), strict=True):
        assert [np.mean(found) for found in direction] == pytest.approx(whole.tolist(), rel=1e-4)


def test_a_batch_weighs_a_sample_of_the_gallery_and_its_own_clusters_once():
    weights = sample_weights(torch.tensor([7, 7, -2, 9]), 12)  # an anchor's cluster holds 1.5 of them
    assert weights[0].tolist() == pytest.approx([0, 0, math.log(10.5 / 2.5), math.log(10.5 / 2.5)])
    assert weights.diagonal().tolist() == [0, 0, 0, 0]
    assert sample_weights(torch.arange(8), 4).abs().max() == 0  # larger than the gallery: as it is
    assert sample_weights(torch.zeros(3), 9).abs().max() == 0  # one cluster, nothing else to weigh


def test_weights_leave_out_what_is_masked_and_count_positives_once():
    ids = torch.arange(3)
    images, texts = unit_rows(3, 4, 2), unit_rows(3, 4, 3)
    masked = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    weights = sample_weights(ids, 21)  # each of two negatives counts ten times
    found, _ = cross_modal(images, texts, ids, ids, 2.0, masked, log_weights=weights)
    logits = (2.0 * images @ texts.T).exp()
    total = [
        logits[0, 0] + 10 * logits[0, 2],
        logits[1, 1] + 10 * logits[1, 2],
        logits[2, 2] + 10 * logits[2, :2].sum(),
    ]
    assert found.tolist() == pytest.approx(
        [math.log(t / logits[i, i]) for i, t in enumerate(total)], rel=1e-5
    )


def slow_sigmoid(similarities, positive, ignored):
    """One pair at a time."""
    rows = []
    for q in range(len(similarities)):
        total = 0.0
        for k in range(similarities.shape[1]):
            z = float(similarities[q, k])
            if positive[q, k]:
                total += math.log(1 + math.exp(-z))
            elif not ignored[q, k]:
                total += math.log(1 + math.exp(z))
        rows.append(total)
    return torch.tensor(rows)


def test_the_sigmoid_loss_is_that_of_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    similarities = torch.randn(5, 7, generator=generator) * 3 - 2
    positive = torch.zeros(5, 7, dtype=torch.bool)
    positive[range(5), range(5)] = True
    positive[0, 6] = True
    ignored = torch.rand(5, 7, generator=generator) < 0.3
    torch.testing.assert_close(
        sigmoid(similarities, positive, ignored), slow_sigmoid(similarities, positive, ignored)
    )
    weights = torch.full((5, 7), math.log(3.0))
    thrice = sigmoid(similarities, positive, ignored, weights) - sigmoid(similarities, positive, ignored)
    only = sigmoid(similarities, positive, ignored | ~positive)
    torch.testing.assert_close(thrice, 2 * (sigmoid(similarities, positive, ignored) - only))


def test_a_bias_moves_the_sigmoid_loss_and_not_the_softmax():
    images, texts = (unit_rows(4, 8, seed) for seed in (1, 2))
    ids = torch.arange(4)
    for objective, moves in (("infonce", False), ("sigmoid", True)):
        losses = [
            cross_modal(images, texts, ids, ids, 10.0, bias=bias, objective=objective)[0]
            for bias in (0.0, -10.0)
        ]
        assert torch.allclose(*losses, atol=1e-5) != moves


def test_uni_modal_sigmoid_begins_equal_views_as_an_even_guess():
    features = unit_rows(2, 8, 3).repeat_interleave(2, 0)
    loss = uni_modal(features, torch.tensor([0, 0, 1, 1]), 0.1, objective="sigmoid")
    apart = torch.nn.functional.softplus(features[0] @ features[2] / 0.1 - 10)
    torch.testing.assert_close(loss, (math.log(2) + 2 * apart).expand(4))


def shares(bounds, own):
    return Shares([slice(start, stop) for start, stop in itertools.pairwise(bounds)], own)


def shared_sum(make, whole_rows, whole_keys, row_bounds, key_bounds):
    """What three shares give together: the value, and the gradients to rows and keys from their owners."""
    value = 0.0
    rows, keys = torch.zeros_like(whole_rows), torch.zeros_like(whole_keys)
    for own in range(3):
        mine = [shares(bounds, own) for bounds in (row_bounds, key_bounds)]
        inputs = [tensor.detach().clone().requires_grad_() for tensor in (whole_rows, whole_keys)]
        part = make(*inputs, *mine)
        part.backward()
        value += part.item()
        for total, tensor, share in zip((rows, keys), inputs, mine, strict=True):
            total[share.slices[own]] += tensor.grad[share.slices[own]]
    return value, rows, keys


def test_shares_of_the_sigmoid_loss_make_the_whole():
    """Three shares of unlike sizes, one of them empty of rows; two captions a picture, masks and weights."""
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(5, 8, generator=generator), dim=1)
    texts = F.normalize(torch.randn(10, 8, generator=generator), dim=1)
    image_ids, text_ids = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 1, 2, 3, 0]).repeat_interleave(2)
    masked = torch.rand(5, 10, generator=generator) < 0.2
    log_weights = torch.rand(5, 10, generator=generator)
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (7.0, -3.0))
    a, b = images.clone().requires_grad_(), texts.clone().requires_grad_()
    whole, _ = cross_modal(
        a, b, image_ids, text_ids, scale, masked, log_weights, bias=bias, objective="sigmoid"
    )
    whole.sum().backward()
    wanted = scale.grad.item(), bias.grad.item()
    scale.grad = bias.grad = None

    def of_share(rows, keys, row_shares, key_shares):
        return sigmoid_of_share(
            rows, keys, image_ids, text_ids, scale, bias, row_shares, key_shares, masked, log_weights
        )

    value, rows, keys = shared_sum(of_share, images, texts, (0, 3, 5, 5), (0, 6, 10, 10))
    assert value == pytest.approx(whole.sum().item(), rel=1e-5)
    torch.testing.assert_close(rows, a.grad)
    torch.testing.assert_close(keys, b.grad)
    assert (scale.grad.item(), bias.grad.item()) == pytest.approx(wanted, rel=1e-5)


def test_shares_of_views_among_themselves_make_the_whole():
    features = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    ids, masked = torch.tensor([0, 0, 1, 1, 2, 2]), torch.zeros(6, 6, dtype=torch.bool)
    masked[0, 3] = masked[3, 0] = True
    a = features.clone().requires_grad_()
    whole = uni_modal(a, ids, 0.2, masked, objective="sigmoid")
    whole.sum().backward()

    def of_share(rows, keys, *both):
        return sigmoid_of_share(rows, keys, ids, ids, 5.0, -5.0, *both, masked, among_themselves=True)

    value, rows, keys = shared_sum(of_share, features, features, (0, 2, 4, 6), (0, 2, 4, 6))
    assert value == pytest.approx(whole.sum().item(), rel=1e-5)
    torch.testing.assert_close(rows + keys, a.grad)
    assert shares((0, 2, 4, 6), 1).map(3, 3).slices == [slice(0, 6), slice(6, 9), slice(9, 9)]
