"""Mixing tuned weights with those that a run began with (Wortsman et al. 2022, "WiSE-FT")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unicross.model import TwoTower
from unicross.result import Result
from unicross.training.dataset import Dataset
from unicross.training.embedding import validate

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the tuned weights that are tried beside all of them and none of them."""


def mixed(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights between those of the start and the tuned ones, `share` of the way."""
    return {name: torch.lerp(start[name].float(), tensor.float(), share) for name, tensor in tuned.items()}


def best_mix(
    model: TwoTower, start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], val: Dataset
) -> tuple[float, Result, dict[str, float]]:
    """The share whose mix has the best rSum on the validation items. `model` is left with that mix.

    Returns:
        The share; what it found; the rSum of every share that was tried.
    """
    results = {}
    for share in SHARES:
        model.load_state_dict(mixed(start, tuned, share))
        results[share] = validate(model, val)
    best = max(results, key=lambda share: results[share].metrics["rsum"])
    model.load_state_dict(mixed(start, tuned, best))
    return best, results[best], {f"{share:g}": result.metrics["rsum"] for share, result in results.items()}
