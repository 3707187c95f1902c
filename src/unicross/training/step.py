"""One step: views of a batch through the towers, the stage's losses on their features, and the gradient.

Features are made first and the losses see only features; so a large batch can pass the towers in
micro-batches with exactly the gradient of the whole (gradient caching, Gao et al. 2021).

Letters: I images of the batch, T texts, P pairs (the first P of both), V views, D and U dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unicross.data.preparation import PatchCanvas
from unicross.data.tokens import Tokens
from unicross.data.views import apply_views
from unicross.losses import (
    Objective,
    against_remembered,
    cross_modal,
    sample_weights,
    sigmoid_of_share,
    uni_modal,
)
from unicross.model import TwoTower
from unicross.model.tower import Tower
from unicross.stage import Losses, Stage
from unicross.training.batch import Batch
from unicross.training.distributed import gather, scale_gradient, shares, size, sum_gradients, total
from unicross.training.rounds import FeatureBank


@dataclass(frozen=True, slots=True)
class Features:
    """Unit vectors of one modality by item and view; None where no loss of the stage wants them."""

    cross: Tensor | None = None  # [N, V, D] in the shared space
    uni: Tensor | None = None  # [N, V, U] for the uni-modal loss

    def map(self, change: Callable[[Tensor], Tensor]) -> Features:
        return Features(*(None if t is None else change(t) for t in (self.cross, self.uni)))


@dataclass(frozen=True, slots=True)
class Contrast:
    """How cosines of images and texts become a loss."""

    scale: Tensor  # 1 / temperature
    bias: Tensor | float = 0.0
    objective: Objective = "infonce"
    by_share: bool = False  # whether each process computes its part of the losses, not the whole


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step found out, of the whole batch, detached."""

    losses: dict[str, Tensor]  # unweighted, by name
    images: Features
    texts: Features


Encode = Callable[[TwoTower, Batch, slice, Losses], Features]


def backward(
    model: TwoTower,
    batch: Batch,
    stage: Stage,
    autocast: Callable[[], torch.autocast],
    micro_batch: int | None = None,
    bank: FeatureBank | None = None,
) -> Outcome:
    """Add the gradient of the stage's loss on this batch to the parameters.

    Args:
        autocast: makes the context in which the towers run.
        micro_batch: rows that pass a tower at a time; None for all.
        bank: what earlier steps made of the items, for remembered views.

    Returns:
        The losses and features of the whole batch, in all processes.
    """
    image_slices = _slices(len(batch.pixels[0]) if batch.pixels else 0, micro_batch)
    text_slices = _slices(len(batch.text_views[0].lengths) if batch.text_views else 0, micro_batch)
    cached = len(image_slices) > 1 or len(text_slices) > 1

    def encode(encoder: Encode, rows: slice, number: int) -> Features:
        torch.manual_seed(batch.seed + number)  # dropout: the same in both passes of a micro-batch
        with autocast():
            return encoder(model, batch, rows, stage.losses)

    def encode_images(number: int) -> Features:
        return encode(_image_features, image_slices[number], number)

    def encode_texts(number: int) -> Features:
        return encode(_text_features, text_slices[number], len(image_slices) + number)

    with torch.set_grad_enabled(not cached):
        own_images = _join([encode_images(number) for number in range(len(image_slices))])
        own_texts = _join([encode_texts(number) for number in range(len(text_slices))])
    if cached:  # tensors of their own, which collect the gradient of the whole
        own_images, own_texts = (f.map(_as_leaf) for f in (own_images, own_texts))
    images = own_images.map(lambda tensor: gather(tensor, len(batch.image_ids)))
    texts = own_texts.map(lambda tensor: gather(tensor, len(batch.text_ids)))
    contrast = _contrast(model, stage.losses.objective or model.objective)
    losses = batch_losses(images, texts, batch, stage, contrast, bank)
    weighted_sum(losses, stage.losses).backward()
    if cached:
        for number, rows in enumerate(image_slices):
            _resume_backward(encode_images(number), own_images, rows)
        for number, rows in enumerate(text_slices):
            _resume_backward(encode_texts(number), own_texts, rows)
    sum_gradients(model.parameters())
    return Outcome(
        {name: value.detach() for name, value in losses.items()},
        images.map(Tensor.detach),
        texts.map(Tensor.detach),
    )


def _contrast(model: TwoTower, objective: Objective) -> Contrast:
    by_share = objective == "sigmoid" and size() > 1
    part = (lambda value: value) if by_share else scale_gradient
    return Contrast(part(model.scale), 0.0 if model.bias is None else part(model.bias), objective, by_share)


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


def _image_features(model: TwoTower, batch: Batch, rows: slice, losses: Losses) -> Features:
    """Features of some images, all views of a kind in one pass."""
    views, device = len(batch.image_views), batch.image_ids.device
    of_views = batch.pixels * views if len(batch.pixels) == 1 else batch.pixels
    if isinstance(model.picture_rules.resize, PatchCanvas):  # shown whole: see `checks.check_trains`
        pooled = torch.cat([model.image(**model.whole_pictures(pixels[rows])) for pixels in of_views])
        return _features(model.image, pooled, views, losses.image_text > 0, losses.image_image > 0)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):  # coordinates need float32
        draws = [view.rows(rows).to(device) for view in batch.image_views]
        shown = [
            model.normalise(apply_views(pixels[rows], draw, model.view_side(draw.size)))
            for pixels, draw in zip(of_views, draws, strict=True)
        ]
        passes = [(view, draw.patch_dropout) for view, draw in zip(shown, draws, strict=True)]
        if len({(view.shape, dropout) for view, dropout in passes}) == 1:
            passes = [(torch.cat(shown), passes[0][1])]
    pooled = torch.cat([model.image(pixel_values=view, patch_dropout=dropout) for view, dropout in passes])
    return _features(model.image, pooled, views, losses.image_text > 0, losses.image_image > 0)


def _text_features(model: TwoTower, batch: Batch, rows: slice, losses: Losses) -> Features:
    """Features of some texts, all views together."""
    views = [view.rows(rows) for view in batch.text_views]
    pooled = model.text.encode(_stacked(views))  # [V * T, H]
    return _features(model.text, pooled, len(views), losses.image_text > 0, losses.text_text > 0)


def _features(tower: Tower, pooled: Tensor, views: int, cross: bool, uni: bool) -> Features:
    """What the losses want of pooled features [V * N, H]."""
    return Features(
        _by_item(tower.embed(pooled), views) if cross else None,
        _by_item(tower.embed_uni(pooled), views) if uni else None,
    )


def _stacked(views: Sequence[Tokens]) -> Tokens:
    """Texts of all views, one view after another, padded alike."""
    longest = max(view.ids.shape[1] for view in views)
    ids, mask = (
        torch.cat([F.pad(table, (0, longest - table.shape[1])) for table in tables])
        for tables in ([view.ids for view in views], [view.mask for view in views])
    )  # [V * T, L]
    return Tokens(ids, mask, np.concatenate([view.lengths for view in views]))


def _by_item(rows: Tensor, views: int) -> Tensor:
    """[V * N, D] -> [N, V, D]"""
    return rows.unflatten(0, (views, -1)).transpose(0, 1)


def _slices(count: int, size: int | None) -> list[slice]:
    return [slice(start, start + (size or count)) for start in range(0, count, size or max(count, 1))]


def _join(parts: Sequence[Features]) -> Features:
    """The features of all micro-batches."""

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(present) if len(present) > 1 else next(iter(present), None)

    return Features(joined([part.cross for part in parts]), joined([part.uni for part in parts]))


def _as_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _resume_backward(part: Features, whole: Features, rows: slice) -> None:
    """Send the gradient of the whole features back through one micro-batch's towers."""
    tensors, gradients = [], []
    for tensor, joined in ((part.cross, whole.cross), (part.uni, whole.uni)):
        if tensor is not None and tensor.requires_grad and joined is not None and joined.grad is not None:
            tensors.append(tensor)
            gradients.append(joined.grad[rows])
    if tensors:
        torch.autograd.backward(tensors, gradients)
