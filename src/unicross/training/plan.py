"""What an epoch begins with: a new round where one is due, and the plan of its batches."""

from __future__ import annotations

import time

import numpy as np

from unicross.batches import (
    Indices,
    Plan,
    clustered_batches,
    hardness,
    random_batches,
    uni_modal_batches,
)
from unicross.stage import Stage
from unicross.streams import draw_seed, stream
from unicross.training.dataset import Dataset
from unicross.training.rounds import Clusters, Round, embed_pairs, new_clusters, wrong_among
from unicross.training.state import State


def plan_epoch(state: State, data: Dataset) -> tuple[Plan, dict[str, float]]:
    """The batches of the epoch where the run stands, equal again when that epoch is resumed.

    Where a round is due, the model makes it: `state.round` changes, and what that cost is counted.

    Returns:
        The plan; figures of the round, empty where the log has them already or there is none.
    """
    progress, stage, size = state.progress, state.stage, state.recipe.train.batch_size
    seed, where = state.recipe.seed, (progress.stage, progress.epoch)
    begins = progress.batch == 0
    figures = dict[str, float]()
    if state.round is None or (begins and progress.epoch % stage.batches.recluster_every == 0):
        state.round, figures = _new_round(state, data, stream(seed, "round", *where))
    plan = epoch_plan(data, stage, progress.epoch, size, state.round, stream(seed, "plan", *where))
    if state.round.clusters is not None and begins:
        rng = stream(seed, "figures", *where)
        figures |= plan_figures(plan, state.round.clusters, stage.batches.mask_above, size, rng)
    return plan, figures


def _new_round(state: State, data: Dataset, rng: np.random.Generator) -> tuple[Round, dict[str, float]]:
    """The clusters and the suspects that the stage asks for; figures of what was made."""
    batches, figures, began = state.stage.batches, dict[str, float](), time.monotonic()
    clusters, suspects = None, None
    if batches.drop_suspects or batches.kind == "clustered":
        image, text, forwards = embed_pairs(state.model, data, state.bank)
        state.progress.count(forwards)
        pairs = data.pairs
        if batches.drop_suspects:
            suspects = wrong_among(pairs, image, text, draw_seed(rng))
            pairs = np.setdiff1d(pairs, suspects)
            figures["suspects"] = len(suspects)
        if batches.kind == "clustered":
            clusters, of_clusters = new_clusters(pairs, image, text, batches.cluster_size, draw_seed(rng))
            figures |= of_clusters
    if figures:
        figures["seconds"] = time.monotonic() - began
    return Round(clusters, suspects), figures


def epoch_plan(
    data: Dataset, stage: Stage, epoch: int, batch_size: int, round_: Round, rng: np.random.Generator
) -> Plan:
    """The batches of one epoch (from 0) of a stage."""
    if stage.losses.image_text == 0:
        images = data.images_only if stage.losses.image_image > 0 else data.pairs[:0]
        texts = data.texts_only if stage.losses.text_text > 0 else data.pairs[:0]
        return uni_modal_batches(data.pairs, images, texts, batch_size, rng)
    pairs, count = round_.pairs(data), steps_per_epoch(data, stage, batch_size)
    plan: Plan = []
    while len(plan) < count:  # once, unless pairs were left out: then some are seen twice
        plan += _pair_batches(pairs, stage, epoch, batch_size, round_, rng)
    return plan[:count]


def _pair_batches(
    pairs: Indices, stage: Stage, epoch: int, batch_size: int, round_: Round, rng: np.random.Generator
) -> Plan:
    """Batches in which each of the pairs occurs once at most."""
    if round_.clusters is None:
        return random_batches(pairs, batch_size, rng)
    clusters = _groups(pairs, round_.clusters.cluster[pairs])
    random_share = stage.batches.random_share(epoch, stage.epochs)
    return clustered_batches(clusters, batch_size, rng, random_fraction=random_share)


def steps_per_epoch(data: Dataset, stage: Stage, batch_size: int) -> int:
    """How many batches `epoch_plan` makes."""
    pairs = len(data.pairs)
    if stage.losses.image_text == 0:
        images = len(data.images_only) if stage.losses.image_image > 0 else 0
        texts = len(data.texts_only) if stage.losses.text_text > 0 else 0
        return max(1, -(-(pairs + max(images, texts)) // batch_size))
    return max(1, pairs // batch_size)


def plan_figures(
    plan: Plan,
    clusters: Clusters,
    mask_above: float | None,
    batch_size: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """How hard the plan's batches are against random ones, and the share of pairs that are masked."""
    pairs = np.flatnonzero(clusters.cluster >= 0)
    figures = {
        "hardness": hardness(plan, clusters.image, clusters.text),
        "hardness_random": hardness(random_batches(pairs, batch_size, rng), clusters.image, clusters.text),
    }
    if mask_above is not None:
        masked = sum(int(clusters.masked(batch, mask_above).sum()) for batch in plan)
        figures["masked"] = masked / max(sum(len(batch) * (len(batch) - 1) for batch in plan), 1)
    return figures


def _groups(items: Indices, cluster: Indices) -> list[Indices]:
    """The items of each cluster, from the cluster of each item."""
    order = np.argsort(cluster, kind="stable")
    return np.split(items[order], np.flatnonzero(np.diff(cluster[order])) + 1)
