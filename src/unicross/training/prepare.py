"""Making a batch ready for a step, ahead of it and off the main thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from unicross.batches import Indices, soft_targets
from unicross.config import Stage
from unicross.data.tokens import CaptionTokens, Tokens
from unicross.data.views import draw_views
from unicross.device import send
from unicross.training.dataset import Dataset
from unicross.training.distributed import draw_seed, share
from unicross.training.rounds import Judge
from unicross.training.step import Batch


def make_batch(
    data: Dataset,
    items: Indices,
    stage: Stage,
    judge: Judge | None,
    turn: int,
    seed: Sequence[int],
    partner: Indices | None = None,
    cluster: Indices | None = None,
) -> Batch:
    """Pixels, drawn views, tokens (a share of them for each process) and mask of the items of one batch.

    Args:
        items: a batch of the plan.
        judge: says which items are alike, for the guard and soft targets; None: no two are.
        turn: epochs done in the run, which decides the caption's turn.
        seed: of everything random in this step; the same seed gives the same batch.
        partner: see `Dataset.partner`; None: only items that have both are pairs.
        cluster: [N] the cluster of each item, -1: of none; None: there are no clusters.
    """
    rng = np.random.default_rng(seed)
    has_image = data.items.rows[items] >= 0
    has_text = data.items.counts[items] > 0
    partners = (data.partner if partner is None else partner)[items]
    pairs, captioned_by = items[partners >= 0], partners[partners >= 0]
    images = np.concatenate([pairs, items[has_image & (partners < 0)]])
    texts = np.concatenate([pairs, items[has_text & ~has_image]])
    if stage.losses.image_image == 0:
        images = pairs  # images alone serve no other loss
    if stage.losses.text_text == 0:
        texts = pairs
    spoken = np.concatenate([captioned_by, texts[len(pairs) :]])
    masked, match = _judged(judge, pairs, stage)
    own_images, own_texts = share(len(images)), share(len(texts))
    pixels = data.pixels[images[own_images]] if stage.image_views else np.zeros((0, 1, 1, 3), np.uint8)
    return Batch(
        image_ids=torch.from_numpy(images),
        text_ids=torch.from_numpy(texts),
        pairs=len(pairs),
        pixels=torch.from_numpy(pixels),
        image_views=tuple(draw_views(view, len(images), rng).rows(own_images) for view in stage.image_views),
        text_views=tuple(
            view.rows(own_texts) for view in _text_views(data.captions, spoken, stage, turn, seed[0], rng)
        ),
        masked=masked,
        match=match,
        cluster=None if stage.batches.gallery is None else torch.from_numpy(_clusters(cluster, pairs)),
        seed=draw_seed(rng),
    )


class Sender:
    """Sends batches to a device; on a GPU from pinned memory, beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Callable[[], Batch]:
        """Begin to send a batch, from any thread. Who calls the result gets it, to compute with."""
        if self.stream is None:
            return lambda: batch.map(lambda tensor: tensor.to(self.device))
        with torch.cuda.stream(self.stream):
            there = batch.map(lambda tensor: send(tensor, self.device))
            came = self.stream.record_event()

        def arrived() -> Batch:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(came)  # the GPU waits, not the caller

            def used(tensor: torch.Tensor) -> torch.Tensor:
                tensor.record_stream(computing)
                return tensor

            return there.map(used)

        return arrived


def _clusters(cluster: Indices | None, pairs: Indices) -> Indices:
    """The cluster [P] of each pair of a batch; pairs of none have a number of their own, below zero."""
    alone = -1 - np.arange(len(pairs))
    return alone if cluster is None else np.where(cluster[pairs] < 0, alone, cluster[pairs])


def _judged(
    judge: Judge | None, pairs: Indices, stage: Stage
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Presumed false negatives and soft targets [P, P] of a batch; None where there are none."""
    losses, guard = stage.losses, stage.batches.guard
    if judge is None:
        return None, None
    masked = None if guard is None else torch.from_numpy(judge.masked(pairs, guard))
    if losses.soft == 0 or losses.image_text == 0:
        return masked, None
    match = torch.from_numpy(soft_targets(judge.alike(pairs), losses.soft, losses.soft_temperature))
    return masked, match if masked is None else match.masked_fill(masked, 0)


def _text_views(
    captions: CaptionTokens,
    items: Indices,
    stage: Stage,
    turn: int,
    run_seed: int,
    rng: np.random.Generator,
) -> tuple[Tokens, ...]:
    """The views of the text tower: a caption of each item, more of them, or other views of the first."""
    count = stage.text_views
    if count == 0 or not len(items):
        return ()
    chosen = captions.choose(items, turn, run_seed)
    first = captions.tokens(chosen)
    if count == 1:
        return (first,)
    if stage.views.text == "dropout":
        return first, first
    return first, *(captions.tokens(row) for row in captions.siblings(chosen, count - 1, rng))
