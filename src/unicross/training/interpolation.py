"""Mixing tuned weights with those that a run began with (Wortsman et al. 2022, "WiSE-FT")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Mix:
    """Weights on the way from the first ones to the tuned ones, and how good they are."""

    share: float
    result: Result
    """On the validation items."""
    elsewhere: dict[str, float]
    """The rSum on other data, by name."""

    @property
    def total(self) -> float:
        """The sum of rSum over all of these data: what a tuned model gained and what it kept."""
        return self.result.metrics["rsum"] + sum(self.elsewhere.values())


def mixes(
    model: TwoTower,
    start: Mapping[str, Tensor],
    tuned: Mapping[str, Tensor],
    val: Dataset,
    elsewhere: Mapping[str, Dataset],
) -> Iterator[Mix]:
    """A mix for each share. `model` holds each while it is looked at, and the last one then."""
    for share in SHARES:
        model.load_state_dict(mixed(start, tuned, share))
        rsums = {name: validate(model, data).metrics["rsum"] for name, data in elsewhere.items()}
        yield Mix(share, validate(model, val), rsums)
