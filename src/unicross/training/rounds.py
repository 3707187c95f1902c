"""A round of clustered training: embeddings of the pairs, clusters of them, and the epoch's batch plan.

The embeddings of a round come from the training steps themselves where they have them: every step computes
the shared-space features of its batch, and a bank keeps the last ones of each item. What the bank lacks is
embedded anew.

Letters: N items, D the shared space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unicross.batches import (
    Indices,
    Plan,
    clustered_batches,
    false_negatives,
    hardness,
    random_batches,
    uni_modal_batches,
    with_unpaired,
)
from unicross.clustering import balanced_clusters
from unicross.config import Stage
from unicross.model import TwoTower
from unicross.training.dataset import Dataset, embed_captions, embed_images, mean_captions
from unicross.training.distributed import from_first

Half = NDArray[np.float16]


@dataclass(frozen=True)
class Round:
    """Embeddings [N, D] by item index, and the cluster of each item [N] (-1: not a pair)."""

    image: Half
    text: Half
    cluster: NDArray[np.int64]

    def masked(self, batch: Indices, guard: float) -> NDArray[np.bool_]:
        """Presumed false negatives [B, B] among the items of a batch: see `batches.false_negatives`."""
        return false_negatives(self.image[batch], self.text[batch], guard)


class Bank:
    """The latest training features of each item, kept on the device."""

    def __init__(self, items: int, dim: int, device: torch.device) -> None:
        self.image = torch.zeros(items, dim, dtype=torch.float16, device=device)
        self.text = torch.zeros(items, dim, dtype=torch.float16, device=device)

    def put(self, ids: Tensor, image: Tensor, text: Tensor) -> None:
        """Keep features [P, V, D] of items [P]: means over views, texts mixed with their last.

        A step sees one or two captions of an item; mixing brings the row near the mean of all of them.
        """
        self.image[ids] = F.normalize(image.mean(dim=1), dim=-1).half()
        self.text[ids] = F.normalize(self.text[ids].float() + text.mean(dim=1), dim=-1).half()

    def forget(self) -> None:
        self.image.zero_()
        self.text.zero_()


def new_round(
    model: TwoTower, data: Dataset, stage: Stage, bank: Bank, seed: int
) -> tuple[Round, dict[str, float], dict[str, int]]:
    """Embed what the bank lacks, cluster, and say how the clusters are.

    Returns:
        The round; figures for the log; forwards spent ({"image": ..., "text": ...}).
    """
    pairs = data.pairs
    image, text = bank.image.cpu().numpy().copy(), bank.text.cpu().numpy().copy()  # steps change the bank
    no_image, no_text = (pairs[~kept[pairs].any(axis=1)] for kept in (image, text))
    image[no_image] = embed_images(model, data, no_image)
    captions = np.flatnonzero(np.isin(data.captions.item, no_text))
    text[no_text] = mean_captions(embed_captions(model, data, captions), data, captions, no_text)
    joint = np.concatenate([image[pairs], text[pairs]], axis=1)  # both at unit length: [P, 2 * D]
    groups = from_first(lambda: balanced_clusters(joint, stage.batches.cluster_size, seed=seed))
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


def epoch_plan(
    data: Dataset,
    stage: Stage,
    epoch: int,
    batch_size: int,
    current: Round | None,
    rng: np.random.Generator,
    partner: Indices | None = None,
) -> Plan:
    """The batches of one epoch (from 0) of a stage. `partner`: see `Dataset.partner`."""
    pairs, batches = data.pairs, stage.batches
    if current is not None:
        clusters = _groups(pairs, current.cluster[pairs])
        plan = clustered_batches(
            clusters,
            batch_size,
            rng,
            random_fraction=batches.random_share(epoch, stage.epochs),
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
    pairs = len(data.pairs)
    if stage.losses.image_text == 0:
        images = len(data.images_alone) if stage.losses.image_image > 0 else 0
        texts = len(data.texts_alone) if stage.losses.text_text > 0 else 0
        return max(1, -(-(pairs + max(images, texts)) // batch_size))
    return max(1, pairs // batch_size)


def plan_figures(
    plan: Plan,
    current: Round,
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
        masked = sum(int(current.masked(batch, guard).sum()) for batch in only_pairs)
        figures["masked"] = masked / max(sum(len(batch) * (len(batch) - 1) for batch in only_pairs), 1)
    return figures


def _groups(items: Indices, cluster: NDArray[np.int64]) -> list[Indices]:
    """The items of each cluster, from the cluster of each item."""
    order = np.argsort(cluster, kind="stable")
    return np.split(items[order], np.flatnonzero(np.diff(cluster[order])) + 1)
