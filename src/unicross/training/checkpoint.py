"""What a run needs to go on, as files of a checkpoint: weights, optimiser, the state's tensors, progress.

`run.RunFolder.publish` makes a checkpoint whole or absent, never half; here is what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unicross.errors import CheckpointError
from unicross.model import TwoTower
from unicross.reading import check_file, read_text
from unicross.training.rounds import Clusters
from unicross.training.sharding import shard_like
from unicross.training.used_words import with_used_words


def save_training(
    folder: Path,
    model: TwoTower,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    progress: Mapping[str, Any],
) -> None:
    """Fill a folder with all that a run needs to go on.

    `weights` are the model's, `moments` the `optimizer_tensors`, both whole.
    """
    model.save(folder, weights)
    save_file(
        {name: tensor.contiguous() for name, tensor in moments.items()}, folder / "optimizer.safetensors"
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "training.safetensors"
    )
    (folder / "progress.json").write_text(json.dumps(progress), encoding="utf-8")


def load_training(
    folder: Path, model: TwoTower, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put weights and optimiser state back and return the other tensors and the progress.

    Raises CheckpointError where the checkpoint cannot be read or is of another model.
    """
    try:
        progress = json.loads(read_text(folder / "progress.json"))
        own = model.state_dict()
        for name in ("model", "optimizer", "training"):
            check_file(folder / f"{name}.safetensors")
        weights = load_file(folder / "model.safetensors")
        weights = with_used_words(model, weights)
        model.load_state_dict({name: shard_like(tensor, own.get(name)) for name, tensor in weights.items()})
        _restore_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        return load_file(folder / "training.safetensors"), progress
    except (OSError, LookupError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot resume from this checkpoint: {error}") from error


def load_clusters(folder: Path) -> Clusters | None:
    """The clusters of the round that a checkpoint was written in; None where that had none."""
    try:
        check_file(folder / "training.safetensors")
        with safe_open(folder / "training.safetensors", framework="np") as file:
            names = {name.removeprefix("round.") for name in file.keys()}  # noqa: SIM118 - not a mapping
            names &= {"image", "text", "cluster"}
            arrays = {name: file.get_tensor(f"round.{name}") for name in names}
    except (OSError, SafetensorError):
        return None
    return Clusters(**arrays) if arrays else None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as tensors by name."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{key}": torch.as_tensor(value)
        for number, values in state.items()
        for key, value in values.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = shard_like(tensor, parameters[int(number)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
