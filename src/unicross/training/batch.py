"""A batch made ready for a step, ahead of it and off the main thread.

Letters: I images of the batch, T texts, P pairs (the first P of both), E rows of this process, S side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unicross.batches import Indices, equal_pairs
from unicross.data.tokens import CaptionTokens, Tokens
from unicross.data.turns import parts_of
from unicross.data.views import ViewDraw, draw_views
from unicross.device import send
from unicross.stage import Stage
from unicross.training.dataset import Dataset
from unicross.training.distributed import draw_own_seed, rank_slice
from unicross.training.rounds import Round

REMEMBERED = 16384
"""Items with whose remembered views a batch is compared, at most, beside its own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step needs. `image_ids` and `text_ids` begin with the pairs.

    Of pixels and views each process has its share of the rows only (see `distributed`).
    """

    image_ids: Tensor  # [I] item indices
    text_ids: Tensor  # [T]
    pairs: int
    pixels: tuple[Tensor, ...]  # by view [E, S, S, 3] uint8; one for all views of the same images
    image_views: tuple[ViewDraw, ...]  # on the host: which rows they change is asked there
    text_views: tuple[Tokens, ...]
    masked: Tensor | None  # [P, P] bool, image by text, presumed false negatives
    equal_to_image: Tensor | None  # [P, P * V] bool, texts that say what another image's caption says
    equal_texts: Tensor | None  # [T * V, T * V] bool, equal texts of different items
    remembered: Tensor | None  # [K] items whose remembered views the batch is compared with, its own included
    equal_to_remembered: Tensor | None  # [T * V, K] bool, texts that say what a caption of another one says
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
            pixels=tuple(change(pixels) for pixels in self.pixels),
            text_views=tuple(Tokens(change(v.ids), change(v.mask), v.lengths) for v in self.text_views),
            masked=changed(self.masked),
            equal_to_image=changed(self.equal_to_image),
            equal_texts=changed(self.equal_texts),
            remembered=changed(self.remembered),
            equal_to_remembered=changed(self.equal_to_remembered),
            cluster=changed(self.cluster),
        )


def make_batch(
    data: Dataset,
    items: Indices,
    stage: Stage,
    round_: Round,
    turn: int,
    rng: np.random.Generator,
) -> Batch:
    """Pixels, drawn views, tokens (a share of them for each process) and mask of the items of one batch.

    Args:
        items: a batch of the plan.
        round_: says which items are near each other.
        turn: epochs done in the run, which decides the caption's turn.
        rng: for everything random in this step; in the same state it gives the same batch.
    """
    has_image = data.items.image_counts[items] > 0
    has_text = data.items.counts[items] > 0
    is_pair = has_image & has_text
    pairs = items[is_pair]
    images = np.concatenate([pairs, items[has_image & ~is_pair]])
    texts = np.concatenate([pairs, items[has_text & ~has_image]])
    if stage.losses.image_image == 0 or stage.remembers_images:
        images = pairs  # images only serve no other loss, and only pairs are remembered
    if stage.losses.text_text == 0 or stage.remembers_texts:
        texts = pairs
    own_images, own_texts = rank_slice(len(images)), rank_slice(len(texts))
    shown = _shown_images(data, images, stage, turn, rng)
    pixels = tuple(torch.from_numpy(data.pixels[of_view[own_images]]) for of_view in shown)
    image_views = tuple(draw_views(view, len(images), rng).rows(own_images) for view in stage.image_views)
    chosen = _chosen_captions(data, texts, stage, turn, rng)
    equal_to_image, equal_texts = _equal_captions(data.captions, texts, len(pairs), chosen)
    remembered = equal_to_remembered = None
    if stage.remembers_images or stage.remembers_texts:
        others = _remembered(round_.pairs(data), pairs, rng)
        remembered = torch.from_numpy(others)
        if stage.remembers_texts:
            equal_to_remembered = _equal_to_remembered(data, texts, chosen, others)
    return Batch(
        image_ids=torch.from_numpy(images),
        text_ids=torch.from_numpy(texts),
        pairs=len(pairs),
        pixels=pixels,
        image_views=image_views,
        text_views=tuple(data.captions.tokens(captions).rows(own_texts) for captions in chosen),
        masked=_masked(round_, pairs, stage.batches.mask_above),
        equal_to_image=equal_to_image,
        equal_texts=equal_texts,
        remembered=remembered,
        equal_to_remembered=equal_to_remembered,
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
    """The cluster [P] of each pair of a batch; without clusters each is one of its own."""
    return torch.from_numpy(
        np.arange(len(pairs)) if round_.clusters is None else round_.clusters.cluster[pairs]
    )


def _shown_images(
    data: Dataset, items: Indices, stage: Stage, turn: int, rng: np.random.Generator
) -> list[Indices]:
    """The images [I] of each view: one of each item, then another of it where it has several.

    One entry where all views show the same images.
    """
    views = len(stage.image_views)
    if not views:
        return []
    first = data.image_turns.choose(items, turn)
    if views == 1 or not data.has_siblings:
        return [first]
    return [first, *data.image_turns.siblings(first, items, views - 1, rng)]


def _chosen_captions(
    data: Dataset, items: Indices, stage: Stage, turn: int, rng: np.random.Generator
) -> list[Indices]:
    """The captions [T] of each text view: one of each item, and others of them or the same again."""
    count = stage.text_views
    if count == 0 or not len(items):
        return []
    turns = data.even_turns if stage.views.languages == "even" else data.caption_turns
    first = turns.choose(items, turn)
    if count == 1:
        return [first]
    if stage.views.text == "dropout":
        return [first, first]
    label = data.items.kind if stage.views.text == "kind" else None
    return [first, *data.caption_turns.siblings(first, items, count - 1, rng, label)]


def _equal_captions(
    captions: CaptionTokens, items: Indices, pairs: int, chosen: list[Indices]
) -> tuple[Tensor | None, Tensor | None]:
    """Which texts must not be negatives of which images, and of which texts: see `Batch`.

    A catalogue repeats its titles: what is said of one item and of another is no negative of either.

    Args:
        items: [T] the item of each text, pairs first.
        pairs: how many of them are pairs.
        chosen: the captions [T] of each view.
    """
    if not chosen:
        return None, None
    shown = np.stack(chosen, axis=1).ravel()  # [T * V], item by item
    item_of_shown = np.repeat(np.arange(len(items)), len(chosen))
    numbers = captions.number[shown]
    equal_texts = _different_items(*equal_pairs(numbers, numbers), item_of_shown, item_of_shown, len(shown))

    of_pairs, pair_of = parts_of(captions.first, captions.counts, items[:pairs])  # all captions of the pairs
    caption, text = equal_pairs(captions.number[of_pairs], numbers[: pairs * len(chosen)])
    equal_to_image = _different_items(
        pair_of[caption], text, np.arange(pairs), item_of_shown[: pairs * len(chosen)], pairs
    )
    return equal_to_image, equal_texts


def _remembered(others: Indices, pairs: Indices, rng: np.random.Generator) -> Indices:
    """Which items [K], ascending, a batch of pairs is compared with: its own and all others, or `REMEMBERED`
    of them."""
    if len(others) > REMEMBERED:
        others = rng.choice(others, REMEMBERED, replace=False, shuffle=False)
    return np.union1d(others, pairs)


def _equal_to_remembered(
    data: Dataset, items: Indices, chosen: list[Indices], remembered: Indices
) -> Tensor | None:
    """[T * V, K] bool, which texts say what a caption of another item says; None where none does.

    Args:
        items: [T] the item of each text.
        chosen: the captions [T] of each view.
        remembered: [K] items, ascending.
    """
    shown = np.stack(chosen, axis=1).ravel()  # [T * V]
    text, item = data.items_saying(shown)
    place = np.searchsorted(remembered, item).clip(max=len(remembered) - 1)
    among = (remembered[place] == item) & (np.repeat(items, len(chosen))[text] != item)
    if not among.any():
        return None
    matrix = np.zeros((len(shown), len(remembered)), dtype=bool)
    matrix[text[among], place[among]] = True
    return torch.from_numpy(matrix)


def _different_items(
    rows: Indices, columns: Indices, item_of_row: Indices, item_of_column: Indices, count: int
) -> Tensor | None:
    """[count, columns] bool, true at these places where their items differ; None where none do."""
    differ = item_of_row[rows] != item_of_column[columns]
    if not differ.any():
        return None
    matrix = np.zeros((count, len(item_of_column)), dtype=bool)
    matrix[rows[differ], columns[differ]] = True
    return torch.from_numpy(matrix)
