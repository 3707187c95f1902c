"""A batch made ready for a step, ahead of it and off the main thread.

Letters: I images of the batch, T texts, P pairs (the first P of both), E rows of this process, S side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unicross.batches import Indices
from unicross.data.tokens import CaptionTokens, Tokens
from unicross.data.views import ViewDraw, draw_views
from unicross.device import send
from unicross.stage import Stage
from unicross.training.dataset import Dataset
from unicross.training.distributed import draw_own_seed, rank_slice
from unicross.training.rounds import Round


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step needs. `image_ids` and `text_ids` begin with the pairs.

    Of pixels and views each process has its share of the rows only (see `distributed`).
    """

    image_ids: Tensor  # [I] item indices
    text_ids: Tensor  # [T]
    pairs: int
    pixels: Tensor  # [E, S, S, 3] uint8
    image_views: tuple[ViewDraw, ...]  # on the host: which rows they change is asked there
    text_views: tuple[Tokens, ...]
    masked: Tensor | None  # [P, P] bool, image by text, presumed false negatives
    cluster: Tensor | None  # [P] which pairs were brought together, where the batch stands for more items
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
            cluster=changed(self.cluster),
        )


def make_batch(
    data: Dataset,
    items: Indices,
    stage: Stage,
    round_: Round,
    turn: int,
    seed: int,
    rng: np.random.Generator,
) -> Batch:
    """Pixels, drawn views, tokens (a share of them for each process) and mask of the items of one batch.

    Args:
        items: a batch of the plan.
        round_: says which image is captioned by which item, and which items are near each other.
        turn: epochs done in the run, which decides the caption's turn.
        seed: of the run, which decides with which caption each item begins.
        rng: for everything random in this step; in the same state it gives the same batch.
    """
    has_image = data.items.rows[items] >= 0
    has_text = data.items.counts[items] > 0
    captioned_by = round_.captioned_by[items]
    is_pair = captioned_by >= 0
    pairs = items[is_pair]
    images = np.concatenate([pairs, items[has_image & ~is_pair]])
    texts = np.concatenate([pairs, items[has_text & ~has_image]])
    if stage.losses.image_image == 0:
        images = pairs  # images only serve no other loss
    if stage.losses.text_text == 0:
        texts = pairs
    with_captions = np.concatenate([captioned_by[is_pair], texts[len(pairs) :]])
    own_images, own_texts = rank_slice(len(images)), rank_slice(len(texts))
    pixels = data.pixels[images[own_images]] if stage.image_views else np.zeros((0, 1, 1, 3), np.uint8)
    return Batch(
        image_ids=torch.from_numpy(images),
        text_ids=torch.from_numpy(texts),
        pairs=len(pairs),
        pixels=torch.from_numpy(pixels),
        image_views=tuple(draw_views(view, len(images), rng).rows(own_images) for view in stage.image_views),
        text_views=tuple(
            view.rows(own_texts) for view in _text_views(data.captions, with_captions, stage, turn, seed, rng)
        ),
        masked=_masked(round_, pairs, stage.batches.mask_above),
        cluster=None if stage.batches.negatives_from is None else _cluster_of(round_, pairs),
        seed=draw_own_seed(rng),
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
            on_device = batch.map(lambda tensor: send(tensor, self.device))
            sent = self.stream.record_event()

        def arrived() -> Batch:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(sent)  # the GPU waits, not the caller

            def used(tensor: torch.Tensor) -> torch.Tensor:
                tensor.record_stream(computing)  # its memory is not given away before that stream is done
                return tensor

            return on_device.map(used)

        return arrived


def _masked(round_: Round, pairs: Indices, mask_above: float | None) -> Tensor | None:
    """Presumed false negatives [P, P]; None without clusters, by whose embeddings they are found."""
    if round_.clusters is None or mask_above is None:
        return None
    return torch.from_numpy(round_.clusters.masked(pairs, mask_above))


def _cluster_of(round_: Round, pairs: Indices) -> Tensor:
    """The cluster [P] of each pair of a batch; pairs of none have a number of their own, below zero."""
    of_none = -1 - np.arange(len(pairs))
    if round_.clusters is None:
        return torch.from_numpy(of_none)
    cluster = round_.clusters.cluster[pairs]
    return torch.from_numpy(np.where(cluster < 0, of_none, cluster))


def _text_views(
    captions: CaptionTokens,
    items: Indices,
    stage: Stage,
    turn: int,
    run_seed: int,
    rng: np.random.Generator,
) -> tuple[Tokens, ...]:
    """The views of the text tower: a caption of each item, and more of them or the first again."""
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
