"""One step: views of a batch through the towers, the stage's losses on their features, and the gradient.

Features are made first and the losses see only features; so a large batch can pass the towers in
micro-batches with exactly the gradient of the whole (gradient caching, Gao et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unicross.losses import Objective
from unicross.model import TwoTower
from unicross.stage import Losses, Stage
from unicross.training.batch import Batch
from unicross.training.batch_losses import Contrast, batch_losses, weighted_sum
from unicross.training.distributed import gather, scale_gradient, size, sum_gradients
from unicross.training.features import Features, image_features, joined_features, text_features
from unicross.training.rounds import FeatureBank


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
        return encode(image_features, image_slices[number], number)

    def encode_texts(number: int) -> Features:
        return encode(text_features, text_slices[number], len(image_slices) + number)

    with torch.set_grad_enabled(not cached):
        own_images = joined_features([encode_images(number) for number in range(len(image_slices))])
        own_texts = joined_features([encode_texts(number) for number in range(len(text_slices))])
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


def _slices(count: int, size: int | None) -> list[slice]:
    return [slice(start, start + (size or count)) for start in range(0, count, size or max(count, 1))]


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
