"""All that changes while a run trains, and how it is kept and put back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unicross.calibration import Calibration
from unicross.config import Recipe
from unicross.data.items import Items
from unicross.errors import CheckpointError
from unicross.model import TwoTower
from unicross.model.kernels import compile_layers, prefer_fast_kernels
from unicross.model_folder import write_calibration, write_recipe
from unicross.run import RunFolder
from unicross.stage import Stage
from unicross.training.checkpoint import load_training, optimizer_tensors, save_training
from unicross.training.distributed import broadcast_weights, is_first, size
from unicross.training.lora import add_adapters, merged
from unicross.training.optim import freeze, make_optimizer
from unicross.training.rounds import FeatureBank, Round
from unicross.training.sharding import full_tensors, shard
from unicross.training.used_words import without_used_words


@dataclass
class Progress:
    """Where a run stands."""

    stage: int = 0
    epoch: int = 0  # of the stage
    batch: int = 0  # of the epoch
    step: int = 0  # of the run
    turn: int = 0  # epochs done in the run
    best: float = -math.inf
    looks_since_best: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_elsewhere: dict[str, float] = field(default_factory=dict)
    forwards: dict[str, float] = field(default_factory=lambda: {"image": 0, "text": 0})
    seconds: float = 0.0

    def count(self, forwards: Mapping[str, float]) -> None:
        for tower, number in forwards.items():
            self.forwards[tower] += number


class State:
    """Weights, optimiser, the bank of features, the round, and where the run stands."""

    def __init__(
        self,
        model: TwoTower,
        recipe: Recipe,
        items: int,
        *,
        several_images: bool = False,
        asked: Recipe | None = None,
    ) -> None:
        """`asked`: the recipe that checkpoints name, where the data left something out; None: `recipe`."""
        self.model = model
        self.recipe = recipe
        self.asked = asked or recipe
        self.optimizer = make_optimizer(model)
        self.bank = FeatureBank(items, model.dim, model.device, several_images=several_images)
        self.round: Round | None = None
        self.progress = Progress()

    @property
    def stage(self) -> Stage:
        """The stage in which the run stands."""
        return self.recipe.stages[self.progress.stage]

    def publish_best(self, run: RunFolder, calibration: Calibration | None) -> None:
        """Write the run's best checkpoint, in the first process. Raises CheckpointError."""
        weights = merged(self.model, self._weights())
        self._publish_best(run, weights, f"best-{self.progress.step:08d}", calibration)

    def _weights(self) -> dict[str, Tensor]:
        return without_used_words(self.model, full_tensors(self.model.state_dict()))

    def publish_other(
        self, run: RunFolder, kind: str, weights: Mapping[str, Tensor], calibration: Calibration | None
    ) -> None:
        """Write other weights, of some kind, as the run's best checkpoint, in the first process. Raises
        CheckpointError."""
        self._publish_best(run, weights, f"{kind}-{self.progress.step:08d}", calibration)

    def _publish_best(
        self, run: RunFolder, weights: Mapping[str, Tensor], name: str, calibration: Calibration | None
    ) -> None:
        def write(folder: Path) -> None:
            self.model.save(folder, weights)
            write_recipe(folder, self.asked)
            if calibration is not None:
                write_calibration(folder, calibration)

        if is_first():
            run.publish(run.best, name, write)
            run.evaluation.unlink(missing_ok=True)  # of the best before

    def publish_last(self, run: RunFolder) -> None:
        """Write the checkpoint that `restore` goes on from, in the first process. Raises CheckpointError."""
        weights = self._weights()
        moments = full_tensors(optimizer_tensors(self.optimizer))

        def write(folder: Path) -> None:
            progress = dataclasses.asdict(self.progress)
            save_training(folder, self.model, weights, moments, self._tensors(), progress)
            write_recipe(folder, self.asked)

        if is_first():
            run.publish(run.last, f"step-{self.progress.step:08d}", write)

    def restore(self, checkpoint: Path) -> None:
        """Put back what `publish_last` wrote. Raises CheckpointError where it cannot be read or fits not."""
        tensors, progress = load_training(checkpoint, self.model, self.optimizer)
        try:
            self.progress = Progress(**progress)
            self.bank.load_state_dict(_below(tensors, "bank."))
            of_round = _below(tensors, "round.")
            self.round = Round.from_state_dict(of_round) if of_round else None
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"{checkpoint}: this checkpoint does not fit the run's data: {error}"
            ) from error

    def _tensors(self) -> dict[str, Tensor]:
        parts = {"bank": self.bank.state_dict(), "round": self.round.state_dict() if self.round else {}}
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def make_model(recipe: Recipe, items: Items, device: torch.device, *, adapters: bool = True) -> TwoTower:
    """A new model on the device, equal in all processes, made ready to be trained, perhaps without its
    adapters.

    Raises CheckpointError.
    """
    torch.manual_seed(recipe.seed)
    start, max_tokens = recipe.train.start_from, recipe.data.max_tokens
    if start is None:
        captions = (text.as_py() for text in items.texts)
        model = TwoTower.create(recipe.model, max_tokens=max_tokens, captions=captions)
    else:
        model = TwoTower.load(start, "cpu", config=recipe.model, max_tokens=max_tokens)
    if recipe.train.lora is not None and adapters:
        add_adapters(model, recipe.train.lora)
    broadcast_weights(model)
    prefer_fast_kernels(model, device)
    if recipe.train.shard and size() > 1:
        freeze(model, recipe.stages[0].freeze, recipe.stages[0].freeze_layers)  # as in all stages
        shard(model, device)
    model.to(device)
    if recipe.train.activation_checkpointing:
        for tower in (model.image, model.text):
            tower.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.train.compile:
        compile_layers(model)
    return model
