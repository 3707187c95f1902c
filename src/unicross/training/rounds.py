"""A round of clustered training: embeddings of the pairs, clusters of them, and the epoch's batch plan.

The embeddings of a round come from the training steps themselves where they have them: every step computes
the shared-space features of its batch, and a bank keeps the last ones of each item. What the bank lacks is
embedded anew.

Letters: N items, D the shared space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unicross.batches import (
    Indices,
    Plan,
    awake_count,
    clustered_batches,
    false_negatives,
    hardness,
    random_batches,
    uni_modal_batches,
    with_unpaired,
)
from unicross.clustering import balanced_clusters, chain
from unicross.config import Batches, Stage
from unicross.model import TwoTower
from unicross.training.dataset import Dataset, embed_captions, embed_images, mean_captions
from unicross.training.distributed import from_first

Half = NDArray[np.float16]


class Judge(Protocol):
    """Says which of the pairs in a batch are alike."""

    def masked(self, batch: Indices, guard: float) -> NDArray[np.bool_]:
        """Presumed false negatives [B, B]: see `batches.false_negatives`."""
        ...

    def alike(self, batch: Indices) -> NDArray[np.float32]:
        """Cosines [B, B] between items within the modalities, symmetric."""
        ...


@dataclass(frozen=True)
class Round:
    """Embeddings [N, D] by item index, and the cluster of each item [N] (-1: not a pair)."""

    image: Half
    text: Half
    cluster: NDArray[np.int64]

    def masked(self, batch: Indices, guard: float) -> NDArray[np.bool_]:
        return false_negatives(self.image[batch], self.text[batch], guard)

    def alike(self, batch: Indices) -> NDArray[np.float32]:
        """The mean of image-image and text-text cosines."""
        return 0.5 * (_cosines(self.image[batch]) + _cosines(self.text[batch]))


@dataclass(frozen=True)
class FrozenText:
    """The mean caption [N, H] of each item under the text tower as it came, before any training."""

    text: Half

    def masked(self, batch: Indices, guard: float) -> NDArray[np.bool_]:
        return false_negatives(self.text[batch], self.text[batch], guard)

    def alike(self, batch: Indices) -> NDArray[np.float32]:
        return _cosines(self.text[batch])


def frozen_text(model: TwoTower, data: Dataset) -> tuple[FrozenText, dict[str, int]]:
    """Embed the captions of all pairs with the tower as it is, without its head; also what that cost."""
    pairs = data.pairs
    captions = np.flatnonzero(np.isin(data.captions.item, pairs))
    embedded = embed_captions(model, data, captions, pooled=True)
    text = np.zeros((len(data.items), embedded.shape[1]), np.float16)
    text[pairs] = mean_captions(embedded, data, captions, pairs)
    return FrozenText(text), {"text": len(captions)}


class Bank:
    """The latest training features of each item, and its latest image-text loss, kept on the device."""

    def __init__(self, items: int, dim: int, device: torch.device) -> None:
        self.image = torch.zeros(items, dim, dtype=torch.float16, device=device)
        self.text = torch.zeros(items, dim, dtype=torch.float16, device=device)
        self.loss = torch.full((items,), torch.inf, device=device)  # not seen yet

    def put(self, ids: Tensor, image: Tensor, text: Tensor, loss: Tensor) -> None:
        """Keep losses [P] and features [P, V, D] of items [P]: means over views, texts mixed with their last.

        A step sees one or two captions of an item; mixing brings the row near the mean of all of them.
        """
        self.image[ids] = F.normalize(image.mean(dim=1), dim=-1).half()
        self.text[ids] = F.normalize(self.text[ids].float() + text.mean(dim=1), dim=-1).half()
        self.loss[ids] = loss

    def forget_features(self) -> None:
        self.image.zero_()
        self.text.zero_()

    def forget(self) -> None:
        self.forget_features()
        self.loss.fill_(torch.inf)


def new_round(
    model: TwoTower, data: Dataset, stage: Stage, bank: Bank, seed: int
) -> tuple[Round, dict[str, float], dict[str, int]]:
    """Embed what the bank lacks, cluster, and say how the clusters are.

    Returns:
        The round; figures for the log; forwards spent ({"image": ..., "text": ...}).
    """
    pairs, batches = data.pairs, stage.batches
    if batches.embed == "fresh":
        bank.forget_features()
    image, text = bank.image.cpu().numpy().copy(), bank.text.cpu().numpy().copy()  # steps change the bank
    no_image, no_text = (pairs[~kept[pairs].any(axis=1)] for kept in (image, text))
    image[no_image] = embed_images(model, data, no_image)
    captions = np.flatnonzero(np.isin(data.captions.item, no_text))
    text[no_text] = mean_captions(embed_captions(model, data, captions), data, captions, no_text)
    groups = from_first(lambda: _clusters(_space(image[pairs], text[pairs], batches), batches, seed))
    cluster = np.full(len(data.items), -1, dtype=np.int64)
    for number, group in enumerate(groups):
        cluster[pairs[group]] = number
    sizes = [len(group) for group in groups]
    figures: dict[str, float] = {
        "clusters": len(groups),
        "size_min": min(sizes),
        "size_max": max(sizes),
    }
    spent = {"image": len(no_image), "text": len(captions)}
    return Round(image, text, cluster), figures, spent


def _clusters(vectors: NDArray[np.floating], batches: Batches, seed: int) -> list[Indices]:
    groups = balanced_clusters(vectors, batches.cluster_size, seed=seed)
    if batches.chained:
        groups = [groups[i] for i in chain(np.stack([vectors[group].mean(axis=0) for group in groups]))]
    return groups


def epoch_plan(
    data: Dataset,
    stage: Stage,
    epoch: int,
    batch_size: int,
    current: Round | None,
    rng: np.random.Generator,
    partner: Indices | None = None,
    awake: Indices | None = None,
) -> Plan:
    """The batches of one epoch (from 0) of a stage.

    `partner`: see `Dataset.partner`. `awake`: the pairs that take part, None for all.
    """
    pairs, batches = data.pairs if awake is None else awake, stage.batches
    if current is not None:
        clusters = _groups(pairs, current.cluster[pairs])
        plan = clustered_batches(
            clusters,
            batch_size,
            rng,
            per_batch=batches.per_batch,
            random_fraction=batches.random_share(epoch, stage.epochs),
            chained=batches.chained,
        )
    elif stage.losses.image_text > 0:
        plan = random_batches(pairs, batch_size, rng)
    else:
        images = data.images_alone if stage.losses.image_image > 0 else pairs[:0]
        texts = data.texts_alone if stage.losses.text_text > 0 else pairs[:0]
        return uni_modal_batches(pairs, images, texts, batch_size, rng)
    images, texts = data.images_alone, data.texts_alone
    if partner is not None:
        matched = images[partner[images] >= 0]
        plan = with_unpaired(plan, matched, texts[:0], batches.pseudo, rng)
        images, texts = np.setdiff1d(images, matched), np.setdiff1d(texts, partner[matched])
    if batches.unpaired:
        plan = with_unpaired(plan, images, texts, batches.unpaired, rng)
    return plan


def steps_per_epoch(data: Dataset, stage: Stage, batch_size: int) -> int:
    """How many batches `epoch_plan` makes."""
    pairs = awake_count(len(data.pairs), stage.batches.rest, batch_size)
    if stage.losses.image_text == 0:
        images = len(data.images_alone) if stage.losses.image_image > 0 else 0
        texts = len(data.texts_alone) if stage.losses.text_text > 0 else 0
        return max(1, -(-(pairs + max(images, texts)) // batch_size))
    return max(1, pairs // batch_size)


def plan_figures(
    plan: Plan,
    current: Round,
    judge: Judge,
    guard: float | None,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """How hard the plan's batches are against random ones, and the share of pairs that the guard masks."""
    pairs = np.flatnonzero(current.cluster >= 0)
    only_pairs = [batch[current.cluster[batch] >= 0] for batch in plan]
    figures = {
        "hardness": hardness(only_pairs, current.image, current.text),
        "hardness_random": hardness(random_batches(pairs, batch_size, rng), current.image, current.text),
    }
    if guard is not None:
        masked = sum(int(judge.masked(batch, guard).sum()) for batch in only_pairs)
        figures["masked"] = masked / max(sum(len(batch) * (len(batch) - 1) for batch in only_pairs), 1)
    return figures


def _cosines(vectors: Half) -> NDArray[np.float32]:
    """Unit vectors [B, D] -> [B, B]"""
    vectors = vectors.astype(np.float32)
    return vectors @ vectors.T


def _space(image: Half, text: Half, batches: Batches) -> NDArray[np.floating]:
    match batches.by:
        case "image":
            return image
        case "text":
            return text
        case "joint":
            return np.concatenate([image, text], axis=1)  # both at unit length: [P, 2 * D]


def _groups(items: Indices, cluster: NDArray[np.int64]) -> list[Indices]:
    """The items of each cluster, from the cluster of each item."""
    order = np.argsort(cluster, kind="stable")
    return np.split(items[order], np.flatnonzero(np.diff(cluster[order])) + 1)
