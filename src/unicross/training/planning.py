"""What an epoch begins with: a new round where one is due, and the plan of its batches."""

from __future__ import annotations

import time

import numpy as np

from unicross.batches import Plan
from unicross.training.dataset import Dataset
from unicross.training.pseudo import pseudo_pairs
from unicross.training.rounds import epoch_plan, new_round, plan_figures
from unicross.training.state import State

ROUND_SEED, PLAN_SEED, FIGURE_SEED = 1, 2, 3


def plan_epoch(state: State, data: Dataset) -> tuple[Plan, dict[str, float]]:
    """The batches of the epoch where the run stands, equal again when that epoch is resumed.

    Where clusters or pseudo-pairs are due, the model makes them anew: `state.round` and `state.partner`
    change, and what that cost is counted.

    Returns:
        The plan; figures of the round, empty where the log has them already or there is none.
    """
    progress, stage, size = state.progress, state.stage, state.recipe.train.batch_size
    seeds = [state.recipe.seed, progress.stage, progress.epoch]
    begins = progress.batch == 0
    due = begins and progress.epoch % stage.batches.recluster_every == 0
    figures = _new_rounds(state, data, seeds, due)
    rng = np.random.default_rng([*seeds, PLAN_SEED])
    plan = epoch_plan(data, stage, progress.epoch, size, state.round, rng, state.partner)
    if state.round is not None and begins:
        rng = np.random.default_rng([*seeds, FIGURE_SEED])
        figures |= plan_figures(plan, state.round, stage.batches.guard, size, rng)
    return plan, figures


def _new_rounds(state: State, data: Dataset, seeds: list[int], due: bool) -> dict[str, float]:
    """Make the clusters and the pseudo-pairs that are due or missing; figures of what was made."""
    batches, figures, began = state.stage.batches, dict[str, float](), time.monotonic()
    seed = int(np.random.SeedSequence([*seeds, ROUND_SEED]).generate_state(1)[0])
    if batches.pseudo and data.has_unpaired and (due or state.partner is None):
        state.partner, found, spent = pseudo_pairs(state.model, data, seed)
        figures |= found
        state.progress.count(spent)
    if batches.kind == "clustered" and (due or state.round is None):
        state.round, found, spent = new_round(state.model, data, state.stage, state.bank, seed)
        figures |= found
        state.progress.count(spent)
    return figures | {"seconds": time.monotonic() - began} if figures else figures
