"""Checkpoints of a run: whole or absent, never half.

    RUN/recipe.yaml          the recipe, every value written out
    RUN/data.json            digests of the items, by which a resumed run knows its data again
    RUN/metrics.jsonl        one line an event
    RUN/checkpoints/NAME/    a model checkpoint, optimizer.safetensors, training.safetensors, progress.json
    RUN/last -> checkpoints/NAME    the newest, from which a run resumes
    RUN/best -> checkpoints/NAME    the best on validation (a model checkpoint alone)

A checkpoint is written to a folder beside its own and renamed when all of it is on disk; then the link is
replaced. Both are atomic, so that a kill at any moment leaves the checkpoint before or the one after.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unicross.errors import CheckpointError
from unicross.files import folder_beside, replace_link
from unicross.model import TwoTower
from unicross.training.sharding import part_like

CHECKPOINTS = "checkpoints"


def publish(run: Path, link: str, name: str, write: Callable[[Path], None]) -> None:
    """Have `write` fill a new folder, then let RUN/`link` point at it, and drop the one it pointed at.

    Raises CheckpointError where it cannot be written (a full disk); the link stays as it was.
    """
    parent = run / CHECKPOINTS
    if _is_linked(run, parent / name):  # of a run that was killed after this and is here again
        name += "-again"
    target = parent / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        with folder_beside(target) as partial:
            write(partial)
        replace_link(run / link, Path(CHECKPOINTS) / name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target}: the checkpoint could not be written: {error}; the one before is untouched. "
            "Make room and go on with --resume"
        ) from error
    for folder in parent.iterdir():
        if not _is_linked(run, folder):
            shutil.rmtree(folder)


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
    run: Path, model: TwoTower, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Put weights and optimiser state back and return the other tensors and the progress.

    Raises CheckpointError where the last checkpoint cannot be read or is of another model.
    """
    folder = run / "last"
    try:
        progress = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        own = model.state_dict()
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict({name: part_like(tensor, own.get(name)) for name, tensor in weights.items()})
        _restore_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        return load_file(folder / "training.safetensors"), progress
    except (OSError, LookupError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot resume from this checkpoint: {error}") from error


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
        state.setdefault(int(number), {})[key] = part_like(tensor, parameters[int(number)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _is_linked(run: Path, folder: Path) -> bool:
    return any(
        (run / link).is_symlink() and os.readlink(run / link).endswith(f"/{folder.name}")
        for link in ("last", "best")
    )
