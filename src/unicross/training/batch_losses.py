"""The losses of a stage on the features of a batch.

Letters: I images of the batch, T texts, P pairs (the first P of both), N items of one of them, V and W views,
D and U dimensions, K items that are remembered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from unicross.losses import (
    Objective,
    against_remembered,
    cross_modal,
    sample_weights,
    sigmoid_of_share,
    uni_modal,
)
from unicross.stage import Losses, Stage
from unicross.training.batch import Batch
from unicross.training.distributed import shares, total
from unicross.training.features import Features
from unicross.training.rounds import FeatureBank


@dataclass(frozen=True, slots=True)
class Contrast:
    """How cosines of images and texts become a loss."""

    scale: Tensor  # 1 / temperature
    bias: Tensor | float = 0.0
    objective: Objective = "infonce"
    by_share: bool = False  # whether each process computes its part of the losses, not the whole


def weighted_sum(losses: dict[str, Tensor], weights: Losses) -> Tensor:
    """The loss of a stage from its parts by name."""
    return torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()


def batch_losses(
    images: Features,
    texts: Features,
    batch: Batch,
    stage: Stage,
    contrast: Contrast,
    bank: FeatureBank | None = None,
) -> dict[str, Tensor]:
    """Each loss of the stage, unweighted, by name."""
    losses: dict[str, Tensor] = {}
    if stage.losses.image_text > 0:
        assert images.cross is not None
        assert texts.cross is not None
        losses["image_text"] = _cross_loss(images.cross, texts.cross, batch, stage, contrast)
    symmetric = None if batch.masked is None else batch.masked | batch.masked.T
    if stage.remembers_images:
        assert images.uni is not None
        assert bank is not None
        temperature = stage.losses.image_temperature
        losses["image_image"] = _remembered_loss(images.uni, batch.image_ids, bank.image, batch, temperature)
    elif images.uni is not None:
        masked = _by_view(symmetric, images.uni)
        temperature = stage.losses.image_temperature
        losses["image_image"] = _uni_loss(images.uni, batch.image_ids, temperature, masked, contrast)
    if stage.remembers_texts:
        assert texts.uni is not None
        assert bank is not None
        temperature, equal = stage.losses.text_temperature, batch.equal_to_remembered
        losses["text_text"] = _remembered_loss(
            texts.uni, batch.text_ids, bank.text, batch, temperature, equal
        )
    elif texts.uni is not None:
        masked = _by_view(symmetric, texts.uni)
        if batch.equal_texts is not None:
            masked = batch.equal_texts if masked is None else masked | batch.equal_texts
        temperature = stage.losses.text_temperature
        losses["text_text"] = _uni_loss(texts.uni, batch.text_ids, temperature, masked, contrast)
    return losses


def _cross_loss(images: Tensor, texts: Tensor, batch: Batch, stage: Stage, contrast: Contrast) -> Tensor:
    """The image-text loss of the pairs. `images` [I, W, D], `texts` [T, V, D]: the first views of each
    count."""
    pairs, captions, negatives_from = batch.pairs, stage.views.captions, stage.batches.negatives_from
    shown = stage.views.images
    log_weights = None
    if negatives_from is not None:
        assert batch.cluster is not None
        log_weights = sample_weights(batch.cluster, negatives_from)
    masked, log_weights = (
        None if matrix is None else matrix.repeat_interleave(captions, 1).repeat_interleave(shown, 0)
        for matrix in (batch.masked, log_weights)
    )  # [P, P] -> [P * shown, P * captions]
    if batch.equal_to_image is not None:  # of all views; those that only the uni-modal loss sees come last
        views = texts.shape[1]
        equal = batch.equal_to_image.unflatten(1, (pairs, views))[..., :captions].flatten(1)
        equal = equal.repeat_interleave(shown, 0)
        masked = equal if masked is None else masked | equal
    rows, keys = images[:pairs, :shown].flatten(0, 1), texts[:pairs, :captions].flatten(0, 1)
    ids = (
        batch.image_ids[:pairs].repeat_interleave(shown),
        batch.text_ids[:pairs].repeat_interleave(captions),
    )
    if contrast.by_share:
        of_rows = shares(len(batch.image_ids)).map(shown, pairs)
        of_keys = shares(len(batch.text_ids)).map(captions, pairs)
        scale, bias = contrast.scale, contrast.bias
        own = sigmoid_of_share(rows, keys, *ids, scale, bias, of_rows, of_keys, masked, log_weights)
        return (
            total(own) * (1 / shown + 1 / captions) / (2 * pairs)
        )  # a pair's loss is one of its image and its text
    of_images, of_texts = cross_modal(
        rows,
        keys,
        *ids,
        contrast.scale,
        masked,
        log_weights,
        bias=contrast.bias,
        objective=contrast.objective,
    )  # [P * shown], [P * captions]
    of_items = of_images.unflatten(0, (-1, shown)).mean(1) + of_texts.unflatten(0, (-1, captions)).mean(1)
    return (of_items / 2).mean()


def _by_view(masked: Tensor | None, features: Tensor) -> Tensor | None:
    """What `masked` [P, P] says of the first P of N items, for all their views: [N * V, N * V]."""
    if masked is None:
        return None
    items, views = features.shape[:2]
    others = items - len(masked)
    whole = F.pad(masked, (0, others, 0, others))  # [N, N]
    return whole.repeat_interleave(views, 0).repeat_interleave(views, 1)


def _uni_loss(
    features: Tensor, ids: Tensor, temperature: float, masked: Tensor | None, contrast: Contrast
) -> Tensor:
    """`features` [N, V, U]; `masked` [N * V, N * V]."""
    items, views = features.shape[:2]
    rows, ids = features.flatten(0, 1), ids.repeat_interleave(views)
    if contrast.by_share:
        scale, of_rows = 1 / temperature, shares(items).map(views, items)
        own = sigmoid_of_share(
            rows, rows, ids, ids, scale, -scale, of_rows, of_rows, masked, among_themselves=True
        )
        return total(own) / len(rows)
    return uni_modal(rows, ids, temperature, masked, objective=contrast.objective).mean()


def _remembered_loss(
    features: Tensor,
    ids: Tensor,
    bank: Tensor,
    batch: Batch,
    temperature: float,
    ignored: Tensor | None = None,
) -> Tensor:
    """`features` [N, V, U] of items `ids` [N], `bank` [all items, U], `ignored` [N * V, K]."""
    assert batch.remembered is not None
    ids = ids.repeat_interleave(features.shape[1])
    keys = bank[batch.remembered]  # [K, U]
    return against_remembered(features.flatten(0, 1), ids, keys, batch.remembered, temperature, ignored)
