"""What an epoch begins with: a new round where one is due, and the plan of its batches."""

from __future__ import annotations

import time

import numpy as np

from unicross.batches import Indices, Plan, awake_count, awake_pairs
from unicross.training.dataset import Dataset
from unicross.training.distributed import from_first
from unicross.training.pseudo import pseudo_pairs
from unicross.training.rounds import epoch_plan, new_round, plan_figures
from unicross.training.state import State

ROUND_SEED, PLAN_SEED, FIGURE_SEED, REST_SEED = 1, 2, 3, 4


def plan_epoch(state: State, data: Dataset) -> tuple[Plan, dict[str, float]]:
    """The batches of the epoch where the run stands, equal again when that epoch is resumed.

    Where clusters or pseudo-pairs are due, the model makes them anew: `state.round` and `state.partner`
    change, and what that cost is counted. Which pairs rest is drawn too.

    Returns:
        The plan; figures of the round, empty where the log has them already or there is none.
    """
    progress, stage, size = state.progress, state.stage, state.recipe.train.batch_size
    seeds = [state.recipe.seed, progress.stage, progress.epoch]
    begins = progress.batch == 0
    due = begins and progress.epoch % stage.batches.recluster_every == 0
    figures = _new_rounds(state, data, seeds, due)
    if stage.batches.rest and begins:
        state.awake = _awake(state, data, np.random.default_rng([*seeds, REST_SEED]))
    rng = np.random.default_rng([*seeds, PLAN_SEED])
    plan = epoch_plan(data, stage, progress.epoch, size, state.round, rng, state.partner, state.awake)
    if state.round is not None and begins:
        rng = np.random.default_rng([*seeds, FIGURE_SEED])
        assert state.judge is not None
        figures |= plan_figures(plan, state.round, state.judge, stage.batches.guard, size, rng)
    return plan, figures


def _awake(state: State, data: Dataset, rng: np.random.Generator) -> Indices:
    """The pairs that this epoch trains."""
    pairs, round_ = data.pairs, state.round
    count = awake_count(len(pairs), state.stage.batches.rest, state.recipe.train.batch_size)
    losses = state.bank.loss.cpu().numpy()[pairs]
    cluster = pairs if round_ is None else round_.cluster[pairs]
    return from_first(lambda: pairs[awake_pairs(losses, cluster, count, rng)])


def _new_rounds(state: State, data: Dataset, seeds: list[int], due: bool) -> dict[str, float]:
    """Make the clusters and the pseudo-pairs that are due or missing; figures of what was made."""
    batches, figures, began = state.stage.batches, dict[str, float](), time.monotonic()
    seed = int(np.random.SeedSequence([*seeds, ROUND_SEED]).generate_state(1)[0])
    if batches.pseudo and data.has_unpaired and (due or state.partner is None):
        state.partner, found, spent = pseudo_pairs(state.judged, data, seed)
        figures |= found
        state.progress.count(spent)
    if batches.kind == "clustered" and (due or state.round is None):
        state.round, found, spent = new_round(state.judged, data, state.stage, state.bank, seed)
        figures |= found
        state.progress.count(spent)
    return figures | {"seconds": time.monotonic() - began} if figures else figures
