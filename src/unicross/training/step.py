"""One step: views of a batch through the towers, the stage's losses on their features, and the gradient.

Features are made first and the losses see only features; so a large batch can pass the towers in
micro-batches with exactly the gradient of the whole (gradient caching, Gao et al. 2021).

Letters: I images of the batch, T texts, P pairs (the first P of both), V views, D and U dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unicross.config import Losses, Stage
from unicross.data.tokens import Tokens
from unicross.data.views import ViewDraw, apply_views
from unicross.device import send
from unicross.losses import cross_modal, sample_weights, uni_modal
from unicross.model import TwoTower
from unicross.training.distributed import gather, one_of_many, sum_gradients
from unicross.training.packing import packed_features

LEAST_TOGETHER, MOST_GROUPS = 16, 4
"""Texts in the smallest of the groups of like length, and how many groups there are at most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step needs, made ready ahead of it. `image_ids` and `text_ids` begin with the pairs.

    Of pixels and views each process has its share of the rows only (see `distributed`).
    """

    image_ids: Tensor  # [I] item indices
    text_ids: Tensor  # [T]
    pairs: int
    pixels: Tensor  # [E, S, S, 3] uint8
    image_views: tuple[ViewDraw, ...]  # on the host: which rows they change is asked there
    text_views: tuple[Tokens, ...]
    masked: Tensor | None  # [P, P] bool, image by text, presumed false negatives
    match: Tensor | None  # [P, P] float32, how much items match where that is not all or nothing
    cluster: Tensor | None  # [P] which pairs were brought together, where the batch stands for a gallery
    seed: int  # of dropout

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with each of its tensors changed, but what stays on the host."""

        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(
            self,
            image_ids=change(self.image_ids),
            text_ids=change(self.text_ids),
            pixels=change(self.pixels),
            text_views=tuple(Tokens(change(v.ids), change(v.mask), v.lengths) for v in self.text_views),
            masked=changed(self.masked),
            match=changed(self.match),
            cluster=changed(self.cluster),
        )


@dataclass(frozen=True, slots=True)
class Features:
    """Unit vectors by item and view; None where no loss of the stage wants them."""

    image: Tensor | None = None  # [I, V, D] in the shared space
    text: Tensor | None = None  # [T, V, D]
    image_uni: Tensor | None = None  # [I, V, U] for the uni-modal loss
    text_uni: Tensor | None = None  # [T, V, U]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step found out, of the whole batch, detached."""

    losses: dict[str, Tensor]  # unweighted, by name
    features: Features
    pair_loss: Tensor | None  # [P] the image-text loss of each pair


def backward(
    model: TwoTower,
    batch: Batch,
    stage: Stage,
    autocast: Callable[[], torch.autocast],
    micro_batch: int | None = None,
) -> Outcome:
    """Add the gradient of the stage's loss on this batch to the parameters.

    Args:
        autocast: makes the context in which the towers run.
        micro_batch: rows that pass a tower at a time; None for all.

    Returns:
        The losses and features of the whole batch, in all processes.
    """
    images = _slices(len(batch.pixels) if batch.image_views else 0, micro_batch)
    texts = _slices(len(batch.text_views[0].lengths) if batch.text_views else 0, micro_batch)
    jobs = [(_image_features, rows) for rows in images] + [(_text_features, rows) for rows in texts]

    def run(number: int) -> tuple[Tensor | None, Tensor | None]:
        encode, rows = jobs[number]
        torch.manual_seed(batch.seed + number)  # dropout: the same in both passes of a micro-batch
        with autocast():
            return encode(model, batch, rows, stage.losses)

    cached = len(images) > 1 or len(texts) > 1
    with torch.set_grad_enabled(not cached):
        made = [run(number) for number in range(len(jobs))]
    own = _join(made[: len(images)], made[len(images) :], leaves=cached)
    features = _gathered(own, batch)
    parts, pair_loss = batch_losses(features, batch, stage, one_of_many(model.scale))
    torch.stack([getattr(stage.losses, name) * value for name, value in parts.items()]).sum().backward()
    if cached:
        for number, (encode, rows) in enumerate(jobs):
            of_image = encode is _image_features
            wholes = (own.image, own.image_uni) if of_image else (own.text, own.text_uni)
            _resume_backward(run(number), wholes, rows)
    sum_gradients(model.parameters())
    return Outcome(
        {name: value.detach() for name, value in parts.items()},
        Features(*(None if t is None else t.detach() for t in _tensors(features))),
        None if pair_loss is None else pair_loss.detach(),
    )


def batch_losses(
    features: Features, batch: Batch, stage: Stage, scale: Tensor
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Each loss of the stage, unweighted, by name; and the image-text loss of each pair [P], if any."""
    losses, pairs = stage.losses, batch.pairs
    result: dict[str, Tensor] = {}
    pair_loss = None
    if losses.image_text > 0:
        assert features.image is not None
        assert features.text is not None
        v, w = stage.views.pictures, stage.views.captions
        images, texts = features.image[:pairs, :v], features.text[:pairs, :w]  # [P, v, D], [P, w, D]
        gallery = stage.batches.gallery
        log_weights = None
        if gallery is not None:
            assert batch.cluster is not None
            log_weights = sample_weights(batch.cluster, gallery)
        masked, match, log_weights = (
            None if matrix is None else matrix.repeat_interleave(v, 0).repeat_interleave(w, 1)
            for matrix in (batch.masked, batch.match, log_weights)
        )  # [P * v, P * w]
        of_images, of_texts = cross_modal(
            images.flatten(0, 1),
            texts.flatten(0, 1),
            batch.image_ids[:pairs].repeat_interleave(v),
            batch.text_ids[:pairs].repeat_interleave(w),
            scale,
            masked,
            match,
            log_weights,
        )  # [P * v], [P * w]
        pair_loss = (of_images.unflatten(0, (-1, v)).mean(1) + of_texts.unflatten(0, (-1, w)).mean(1)) / 2
        result["image_text"] = pair_loss.mean()
    symmetric = None if batch.masked is None else batch.masked | batch.masked.T
    if features.image_uni is not None:
        result["image_image"] = _uni_loss(
            features.image_uni, batch.image_ids, losses.image_temperature, symmetric
        )
    if features.text_uni is not None:
        result["text_text"] = _uni_loss(features.text_uni, batch.text_ids, losses.text_temperature, symmetric)
    return result, pair_loss


def _uni_loss(features: Tensor, ids: Tensor, temperature: float, masked: Tensor | None) -> Tensor:
    """`features` [N, V, U]; `masked` [P, P] speaks of the first P items."""
    views = features.shape[1]
    if masked is not None:
        others = len(ids) - len(masked)
        masked = F.pad(masked, (0, others, 0, others))  # [N, N]
        masked = masked.repeat_interleave(views, 0).repeat_interleave(views, 1)
    return uni_modal(features.flatten(0, 1), ids.repeat_interleave(views), temperature, masked).mean()


def _image_features(
    model: TwoTower, batch: Batch, rows: slice, losses: Losses
) -> tuple[Tensor | None, Tensor | None]:
    """Cross and uni features [i, V, .] of some images, all views of a kind in one pass."""
    pixels, views = batch.pixels[rows], len(batch.image_views)
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):  # coordinates need float32
        draws = [view.rows(rows).to(pixels.device) for view in batch.image_views]
        shown = [model.normalise(apply_views(pixels, draw, model.view_side(draw.size))) for draw in draws]
        passes = [(view, draw.patch_dropout) for view, draw in zip(shown, draws, strict=True)]
        if len({(view.shape, dropout) for view, dropout in passes}) == 1:
            passes = [(torch.cat(shown), passes[0][1])]
    made = [model.image(pixel_values=view, patch_dropout=dropout) for view, dropout in passes]
    pooled = torch.cat(made)  # [V * i, H]
    return (
        _by_item(model.image.embed(pooled), views) if losses.image_text > 0 else None,
        _by_item(model.image.embed_uni(pooled), views) if losses.image_image > 0 else None,
    )


def _text_features(
    model: TwoTower, batch: Batch, rows: slice, losses: Losses
) -> tuple[Tensor | None, Tensor | None]:
    """Cross and uni features [t, V, .] of some texts, all views together, in groups of like length.

    A group is padded to its longest, in the whole tower or, where that packs, in attention only. Few texts
    are long, so the groups shrink as texts grow.
    """
    views = batch.text_views
    lengths = np.concatenate([view.lengths[rows] for view in views])  # [V * t]
    width = max(view.ids.shape[1] for view in views)
    ids = torch.cat([F.pad(view.ids[rows], (0, width - view.ids.shape[1])) for view in views])  # [V * t, L]
    mask = torch.cat([F.pad(view.mask[rows], (0, width - view.mask.shape[1])) for view in views])
    order = np.argsort(lengths, kind="stable")
    there, back = (send(torch.from_numpy(o), ids.device) for o in (order, np.argsort(order)))
    ids, mask, lengths = ids[there, : lengths.max()], mask[there, : lengths.max()], lengths[order]
    cuts = [0, *_halvings(len(order)), len(order)]
    groups = [slice(start, stop) for start, stop in pairwise(cuts)]
    if model.text.packs:
        pooled = packed_features(model.text, ids, mask, [lengths[group] for group in groups])
    else:
        parts = [(group, slice(int(lengths[group].max()))) for group in groups]
        pooled = torch.cat([model.text(input_ids=ids[part], mask=mask[part]) for part in parts])
    pooled = pooled[back]  # [V * t, H]
    return (
        _by_item(model.text.embed(pooled), len(views)) if losses.image_text > 0 else None,
        _by_item(model.text.embed_uni(pooled), len(views)) if losses.text_text > 0 else None,
    )


def _halvings(count: int) -> list[int]:
    """Where to cut `count` things: after the first half, after half of the rest, and so on."""
    cuts = [0]
    while (rest := count - cuts[-1]) >= 2 * LEAST_TOGETHER and len(cuts) < MOST_GROUPS:
        cuts.append(cuts[-1] + rest // 2)
    return cuts[1:]


def _by_item(rows: Tensor, views: int) -> Tensor:
    """[V * N, D] -> [N, V, D]"""
    return rows.unflatten(0, (views, -1)).transpose(0, 1)


def _slices(count: int, size: int | None) -> list[slice]:
    return [slice(start, start + (size or count)) for start in range(0, count, size or max(count, 1))]


Pair = tuple[Tensor | None, Tensor | None]


def _join(images: Sequence[Pair], texts: Sequence[Pair], *, leaves: bool) -> Features:
    """Features of all micro-batches; with `leaves`, as tensors of their own that collect a gradient."""

    def column(pairs: Sequence[Pair], which: int) -> Tensor | None:
        tensors = [pair[which] for pair in pairs]
        present = [t for t in tensors if t is not None]
        if not present:
            return None
        joined = present[0] if len(present) == 1 else torch.cat(present)
        return joined.detach().requires_grad_() if leaves else joined

    return Features(column(images, 0), column(texts, 0), column(images, 1), column(texts, 1))


def _gathered(own: Features, batch: Batch) -> Features:
    """Features of the whole batch, from those of each process's rows."""
    counts = (len(batch.image_ids), len(batch.text_ids), len(batch.image_ids), len(batch.text_ids))
    return Features(
        *(None if t is None else gather(t, count) for t, count in zip(_tensors(own), counts, strict=True))
    )


def _tensors(features: Features) -> tuple[Tensor | None, ...]:
    return features.image, features.text, features.image_uni, features.text_uni


def _resume_backward(made: Pair, wholes: Pair, rows: slice) -> None:
    """Send the gradient of the whole features back through one micro-batch's towers."""
    tensors, gradients = [], []
    for tensor, whole in zip(made, wholes, strict=True):
        if tensor is not None and tensor.requires_grad and whole is not None and whole.grad is not None:
            tensors.append(tensor)
            gradients.append(whole.grad[rows])
    if tensors:
        torch.autograd.backward(tensors, gradients)
