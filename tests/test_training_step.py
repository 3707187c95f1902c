"""What a step does: its losses, its gradients whole and in micro-batches."""

import dataclasses
from functools import partial
from statistics import mean

import numpy as np
import pytest
import torch

import tiny
from training_parts import (
    ALL,
    CPU,
    PLAIN,
    batch_of,
    clustered_round,
    cost,
    gradients,
    prepared,
    random_features,
)
from unicross.device import autocast
from unicross.model import packing
from unicross.stage import FrozenLayers
from unicross.training.batch_losses import Contrast, batch_losses
from unicross.training.features import Features, image_features, text_features
from unicross.training.optim import freeze
from unicross.training.step import backward


@pytest.mark.parametrize("captions", [1, 2])
@pytest.mark.parametrize(("negatives_from", "far"), [(None, 1.0), (9, 5.5)])
def test_losses_of_a_step_equal_a_slow_loop_over_its_anchors(photos, captions, negatives_from, far):
    """Three pairs, then one image and one text alone. Mask and clusters speak of the pairs.

    Pairs 0 and 2 are of one cluster, so that an anchor's cluster holds (2 + 1 + 2) / 3 = 5/3 of them; a pair
    of another one stands for (9 - 5/3) / (3 - 5/3) = 5.5 of the gallery. Image 0 may match text 1.
    """
    stage = ALL | {"batches": {"kind": "clustered", "negatives_from": negatives_from}}
    recipe, _, data = prepared(photos, stage, alone=1, views={"captions": captions})
    batch = batch_of(data, np.array([2, 0, 5, 24, 25]), recipe.stages[0])
    masked = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.bool)
    batch = dataclasses.replace(batch, masked=masked, cluster=torch.tensor([4, 2, 4]))
    images, texts = random_features(4)
    parts = batch_losses(images, texts, batch, recipe.stages[0], Contrast(torch.tensor(10.0)))

    def weight(i, j):
        return 1.0 if {i, j} == {0, 2} else far

    of_pairs = []
    for i in range(3):
        others = [j for j in range(3) if j != i]
        own = texts.cross[i, :captions]
        other_texts = [
            (t, weight(i, j)) for j in others if (i, j) != (0, 1) for t in texts.cross[j, :captions]
        ]
        other_images = [(images.cross[j, 0], weight(i, j)) for j in others if (j, i) != (0, 1)]
        of_image = cost(images.cross[i, 0], own, other_texts, 10.0)
        of_texts = mean(cost(text, images.cross[i, :1], other_images, 10.0) for text in own)
        of_pairs.append((of_image + of_texts) / 2)
    assert parts["image_text"].item() == pytest.approx(mean(of_pairs), rel=1e-5)

    for name, views, temperature in (
        ("image_image", images.uni, 0.1),
        ("text_text", texts.uni, 0.05),
    ):
        of_views = []
        for i in range(4):
            negatives = [
                (view, 1.0) for j in range(4) if j != i and {i, j} != {0, 1} for view in views[j]
            ]  # the mask holds both ways; the last item is alone
            of_views += [cost(views[i, v], views[i, 1 - v, None], negatives, 1 / temperature) for v in (0, 1)]
        assert parts[name].item() == pytest.approx(mean(of_views), rel=1e-5)


# -- gradient caching -------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [1, 3, 5, 7, 100])
def test_gradients_in_micro_batches_are_those_of_the_whole_batch(photos, micro):
    """All three losses, a mask, a gallery, two captions, items alone, texts of many lengths."""
    recipe, model, data = prepared(photos, ALL, alone=2, model={"dropout": 0}, views={"captions": 2})
    stage = recipe.stages[0]
    items = np.array([0, 24, 1, 2, 25, 3, 4, 26, 5])
    batch = batch_of(data, items, stage, clustered_round(data, model, stage))
    assert batch.masked is not None
    assert batch.masked.any()
    model.train()
    at_once = backward(model, batch, stage, PLAIN)
    whole = gradients(model)
    model.zero_grad()
    in_parts = backward(model, batch, stage, PLAIN, micro)
    cached = gradients(model)
    assert whole.keys() == cached.keys()
    assert {"log_scale", "image.uni.0.weight", "text.cross.weight"} <= whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-5, atol=1e-5, msg=name)
    for name, value in at_once.losses.items():
        torch.testing.assert_close(in_parts.losses[name], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_parts.images.cross, at_once.images.cross, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("micro", [2, 4])
def test_gradients_in_micro_batches_with_dropout_equal_one_graph_with_the_same_dropout(photos, micro):
    views = {"image": {"patch_dropout": 0.5}, "image_uni": {"patch_dropout": 0.25}}
    recipe, model, data = prepared(photos, ALL, model={"dropout": 0.3}, views=views)
    stage = recipe.stages[0]
    batch = batch_of(data, np.arange(6), stage)
    model.train()
    rows = [slice(start, start + micro) for start in range(0, 6, micro)]
    made = []
    for number, (encode, part) in enumerate(
        [(image_features, r) for r in rows] + [(text_features, r) for r in rows]
    ):
        torch.manual_seed(batch.seed + number)
        made.append(encode(model, batch, part, stage.losses))
    images, texts = (
        Features(torch.cat([part.cross for part in parts]), torch.cat([part.uni for part in parts]))
        for parts in (made[: len(rows)], made[len(rows) :])
    )
    parts = batch_losses(images, texts, batch, stage, Contrast(model.scale))
    sum(getattr(stage.losses, name) * value for name, value in parts.items()).backward()
    whole = gradients(model)
    model.zero_grad()
    backward(model, batch, stage, PLAIN, micro)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-5, msg=name)
    model.zero_grad()
    torch.manual_seed(1234)  # what was drawn before does not matter
    backward(model, batch, stage, PLAIN, micro)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-5, msg=name)


def test_frozen_towers_pass_in_micro_batches_too(photos):
    recipe, model, data = prepared(photos, tiny.ALIGN | {"freeze": ["image", "text"]})
    batch = batch_of(data, np.arange(6), recipe.stages[0])
    freeze(model, ["image", "text"], FrozenLayers())
    backward(model, batch, recipe.stages[0], PLAIN, 2)
    assert set(gradients(model)) == {"image.cross.weight", "text.cross.weight", "log_scale"}


def test_views_keep_their_precision_under_autocast(photos):
    """Coordinates of crops in bf16 would move pixels; only the towers run in bf16."""
    sharp = {"crop": [0.5, 0.5], "blur": 1.0, "jitter": 1.0, "grey": 0.5}
    recipe, model, data = prepared(photos, ALL, views={"image": sharp, "image_uni": sharp})
    batch = batch_of(data, np.arange(4), recipe.stages[0])
    seen = []
    model.image.backbone.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs), with_kwargs=True
    )
    backward(model, batch, recipe.stages[0], PLAIN)
    backward(model, batch, recipe.stages[0], partial(autocast, CPU, "bf16"))
    torch.testing.assert_close(seen[1]["pixel_values"], seen[0]["pixel_values"])


@pytest.mark.parametrize("micro", [None, 3])
def test_a_small_view_passes_the_tower_at_its_own_size(photos, micro, monkeypatch):
    recipe, model, data = prepared(photos, ALL, views={"image_uni": {"size": 0.5}})
    stage = recipe.stages[0]
    sides = []
    encode = model.image.backbone.forward

    def watched(**inputs):
        sides.append((len(inputs["pixel_values"]), inputs["pixel_values"].shape[-1]))
        return encode(**inputs)

    monkeypatch.setattr(model.image.backbone, "forward", watched)
    batch = batch_of(data, data.pairs[:6], stage)
    images = backward(model, batch, stage, PLAIN, micro).images
    rows = [6] if micro is None else [3, 3]
    assert sides[: 2 * len(rows)] == [(n, side) for n in rows for side in (32, 16)]
    assert images.uni.shape[:2] == (6, 2)
    gradient = model.image.backbone.embeddings.position_embeddings.grad
    assert gradient.abs().sum() > 0


def test_small_views_in_micro_batches_have_the_gradient_of_the_whole(photos):
    found = []
    for micro in (None, 4):
        recipe, model, data = prepared(photos, ALL, model={"dropout": 0}, views={"image_uni": {"size": 0.5}})
        batch = batch_of(data, data.pairs[:6], recipe.stages[0])
        backward(model, batch, recipe.stages[0], PLAIN, micro)
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_texts_of_a_tower_that_cannot_pack_pass_in_groups_that_shrink_as_they_grow_longer(
    photos, monkeypatch
):
    """Which changes nothing but the padding, and texts come back in their own order."""
    recipe, model, data = prepared(photos, tiny.ALIGN)
    batch = batch_of(data, data.pairs[:20], recipe.stages[0])
    model.eval()  # no dropout
    shapes = []
    model.text.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )

    def features(least):
        monkeypatch.setattr(packing, "LEAST_TOGETHER", least)
        return text_features(model, batch, slice(None), recipe.stages[0].losses).cross

    torch.testing.assert_close(features(3), features(1000))
    *groups, whole = shapes
    assert [count for count, _ in groups] == [10, 5, 5]
    assert sum(count * width for count, width in groups) < whole[0] * whole[1]


def test_texts_of_a_tower_that_packs_give_the_same_without_padding(photos, monkeypatch):
    recipe, model, data = prepared(photos, tiny.ALIGN)
    batch = batch_of(data, data.pairs[:20], recipe.stages[0])
    monkeypatch.setattr(packing, "LEAST_TOGETHER", 3)
    model.eval()
    shapes = []
    layer = model.text.backbone.encoder.layer[0]
    layer.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape[:2])))
    found = []
    for model.text.packs in (False, True):
        rows = [slice(0, 12), slice(12, 20)]
        parts = [text_features(model, batch, part, recipe.stages[0].losses).cross for part in rows]
        torch.cat(parts).square().mul(torch.arange(16)).sum().backward()
        found.append((torch.cat(parts), gradients(model)))
        model.zero_grad()
    lengths = batch.text_views[0].lengths
    assert shapes[-2:] == [(1, lengths[:12].sum()), (1, lengths[12:].sum())]
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-5)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
