"""The training loop: stages, epochs, steps, and what is kept of them.

All randomness is derived from (seed, stage, epoch, step), so that a resumed run needs no random state: it
makes the same plan, views and dropout as the run that was killed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unicross.batches import Plan
from unicross.config import Recipe, Stage, dump_recipe, load_recipe
from unicross.data.rows import Problem
from unicross.errors import CheckpointError, DataError, RecipeError, TrainingError
from unicross.model import TwoTower, autocast, pick_device, prefer_fast_attention
from unicross.training.checkpoint import load_training, publish, save_training
from unicross.training.cost import TowerCost, step_forwards, tower_cost
from unicross.training.dataset import (
    Dataset,
    cached_side,
    make_dataset,
    read_splits,
    validate,
)
from unicross.training.events import EventLog, Listener
from unicross.training.optim import freeze, make_optimizer, schedule_shape, set_rates
from unicross.training.prepare import ahead, losses_possible, make_batch, to_device
from unicross.training.rounds import Bank, Round, epoch_plan, new_round, plan_figures
from unicross.training.step import backward

LOG_EVERY = 10
"""Steps between looks at the losses; each look waits for the device."""
NO_LEARNING = 0.02
"""An epoch's mean image-text loss this near ln(batch size) has learned nothing."""
ROUND_SEED, PLAN_SEED, FIGURE_SEED = 1, 2, 3


@dataclass
class Progress:
    """Where a run stands."""

    stage: int = 0
    epoch: int = 0  # of the stage
    batch: int = 0  # of the epoch
    step: int = 0  # of the run
    turn: int = 0  # epochs done in the run
    best: float = -math.inf
    best_metrics: dict[str, float] = field(default_factory=dict)
    forwards: dict[str, int] = field(default_factory=lambda: {"image": 0, "text": 0})
    seconds: float = 0.0


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train a recipe into a run folder.

    Args:
        recipe: what to train; on resuming, equal to that of the run.
        run: a new or empty folder, or with `resume` one of a run that was cut short.
        listener: hears every event (see `events`).
        device: `cpu`, `cuda`, ...; None picks.

    Returns:
        What `run/summary.json` says: best validation `metrics`, `forwards`, `compute` in GFLOP (see `cost`),
        `minutes`, `epochs`, `seed`.

    Raises:
        RecipeError, DataError, CheckpointError, TrainingError: each says what to do.
    """
    _claim(run, recipe, resume)
    return _Run(recipe, run, resume, listener, pick_device(device)).go()


class _Run:
    """The state of a run in memory."""

    def __init__(
        self, recipe: Recipe, run: Path, resume: bool, listener: Listener | None, device: torch.device
    ) -> None:
        self.recipe, self.folder, self.device = recipe, run, device
        if recipe.train.threads:
            torch.set_num_threads(recipe.train.threads)
        train_items, val_items, problems = read_splits(recipe)
        torch.manual_seed(recipe.seed)
        captions = [caption for item in train_items for caption in item.captions]
        self.model = TwoTower.create(recipe.model, max_tokens=recipe.data.max_tokens, captions=captions).to(
            device
        )
        prefer_fast_attention(self.model)
        self.optimizer = make_optimizer(self.model)
        self.autocast = partial(autocast, device, recipe.train.precision)

        def decoding(what: str, done: int, total: int) -> None:
            if listener is not None:
                listener({"kind": what, "done": done, "total": total})

        build = partial(
            make_dataset, model=self.model, data=recipe.data, where=run / "cache", progress=decoding
        )
        self.data, bad = build(train_items, side=cached_side(recipe.data, recipe.model))
        self.val: Dataset | None = None
        if val_items:
            self.val, bad_val = build(val_items, side=recipe.model.image_size)
            bad = bad + bad_val
        self._check_data()
        self.cost = _cost(self.model, self.data)
        self.bank = Bank(len(self.data.items), self.model.dim, device)
        self.round: Round | None = None
        self.average = _average(self.model, recipe.train.ema)
        self.progress = Progress()
        if resume and (run / "last").exists():
            self._restore()
        self.log = EventLog(run, self.progress.step if resume else None, listener)
        self._report_problems(problems + bad)
        self.steps = [self._steps_per_epoch(stage) * stage.epochs for stage in recipe.stages]
        self.since = time.monotonic()

    def go(self) -> dict[str, Any]:
        stages, progress = self.recipe.stages, self.progress
        self.emit("start", steps=sum(self.steps), items=len(self.data.items), run=str(self.folder))
        try:
            while progress.stage < len(stages):
                stage = stages[progress.stage]
                freeze(self.model, stage.freeze)
                while progress.epoch < stage.epochs:
                    self._epoch(stage)
                progress.stage, progress.epoch, self.round = progress.stage + 1, 0, None
            return self._finish()
        finally:
            self.log.close()

    def emit(self, kind: str, **values: Any) -> None:
        progress = self.progress
        stage = self.recipe.stages[min(progress.stage, len(self.recipe.stages) - 1)]
        where = {"step": progress.step, "epoch": progress.turn, "stage": stage.name}
        self.log.emit({"kind": kind, **where, **values})

    def _epoch(self, stage: Stage) -> None:
        progress = self.progress
        plan = self._plan(stage)
        self.model.train()
        began, images_text = time.monotonic(), []
        waiting: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        saved = time.monotonic()
        first = progress.batch
        seeds = (self.recipe.seed, progress.stage, progress.epoch)

        def prepare(number: int) -> Any:
            guard = self.round if stage.batches.kind == "clustered" else None
            return make_batch(self.data, plan[number], stage, guard, progress.turn, (*seeds, number))

        for number, batch in zip(
            range(first, len(plan)), ahead(prepare, range(first, len(plan))), strict=True
        ):
            shape = schedule_shape(
                self.recipe.stages,
                self.steps,
                progress.stage,
                progress.epoch * len(plan) + number,
            )
            set_rates(self.optimizer, stage.optim, shape)
            parts = self._step(stage, to_device(batch, self.device))
            progress.batch, progress.step = number + 1, progress.step + 1
            where = {"step": progress.step, "lr": stage.optim.head_lr * shape, "pairs": batch.pairs}
            waiting.append((where, parts))
            if len(waiting) == LOG_EVERY or number + 1 == len(plan):
                images_text += self._look(stage, waiting, began, number + 1 - first)
                waiting = []
            if time.monotonic() - saved > 60 * self.recipe.train.save_minutes and number + 1 < len(plan):
                self._save()
                saved = time.monotonic()
        self._warn_if_nothing_learned(stage, images_text)
        seconds = time.monotonic() - began
        pairs = sum(len(batch) for batch in plan[first:])
        progress.epoch, progress.batch, progress.turn = progress.epoch + 1, 0, progress.turn + 1
        self.emit("epoch", seconds=seconds, pairs_per_second=pairs / max(seconds, 1e-9), batches=len(plan))
        self._validate()
        self._save()

    def _step(self, stage: Stage, batch: Any) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        parts, features = backward(self.model, batch, stage, self.autocast, self.recipe.train.micro_batch)
        if self.recipe.train.clip_norm is not None:
            moving = [p for p in self.model.parameters() if p.grad is not None]
            torch.nn.utils.clip_grad_norm_(moving, self.recipe.train.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        if features.image is not None and features.text is not None and batch.pairs:
            pairs = batch.pairs
            self.bank.put(batch.image_ids[:pairs], features.image[:pairs], features.text[:pairs])
        for tower, count in step_forwards(stage, len(batch.image_ids), len(batch.text_ids)).items():
            self.progress.forwards[tower] += count
        return parts

    def _plan(self, stage: Stage) -> Plan:
        """The epoch's batches; a new round first where one is due. Equal again when the epoch is resumed."""
        progress, seeds = self.progress, [self.recipe.seed, self.progress.stage, self.progress.epoch]
        if stage.batches.kind == "clustered":
            due = progress.epoch % stage.batches.recluster_every == 0 and progress.batch == 0
            if due or self.round is None:
                self.round, figures, spent = new_round(
                    self._judge(), self.data, stage, self.bank, seed=_number(*seeds, ROUND_SEED)
                )
                for tower, count in spent.items():
                    progress.forwards[tower] += count
            else:
                figures = {}
        current = self.round if stage.batches.kind == "clustered" else None
        rng = np.random.default_rng([*seeds, PLAN_SEED])
        plan = epoch_plan(self.data, stage, self.recipe.train.batch_size, current, rng)
        if current is not None and progress.batch == 0:
            rng = np.random.default_rng([*seeds, FIGURE_SEED])
            figures |= plan_figures(plan, current, stage.batches.guard, self.recipe.train.batch_size, rng)
            self.emit("round", **figures)
        return plan

    def _look(
        self, stage: Stage, waiting: list[tuple[dict[str, Any], dict[str, Tensor]]], began: float, done: int
    ) -> list[float]:
        """Write the losses of the last steps; stop where one is not finite. Returns the image-text ones."""
        names = list(waiting[0][1])
        values = torch.stack([torch.stack([parts[name] for name in names]) for _, parts in waiting]).tolist()
        rate = done / max(time.monotonic() - began, 1e-9)
        for (where, _), row in zip(waiting, values, strict=True):
            parts = dict(zip(names, row, strict=True))
            if not all(map(math.isfinite, row)):
                bad = ", ".join(name for name, value in parts.items() if not math.isfinite(value))
                raise TrainingError(
                    f"step {where['step']} of stage {stage.name!r}: the {bad} loss is not finite. Lower optim.image_lr "
                    f"and optim.text_lr, lengthen optim.warmup, or train with train.precision=fp32; "
                    f"--resume goes on from the last checkpoint"
                )
            loss = sum(getattr(stage.losses, name) * value for name, value in parts.items())
            self.emit(
                "step",
                **where,
                loss=loss,
                **{f"loss/{k}": v for k, v in parts.items()},
                pairs_per_second=rate * where["pairs"],
            )
        return [row[names.index("image_text")] for row in values] if "image_text" in names else []

    def _warn_if_nothing_learned(self, stage: Stage, losses: list[float]) -> None:
        if len(losses) >= LOG_EVERY:
            chance = math.log(min(self.recipe.train.batch_size, len(self.data.pairs)))
            mean = sum(losses[-LOG_EVERY:]) / LOG_EVERY
            if abs(mean - chance) < NO_LEARNING:
                self.emit(
                    "note",
                    text=f"the image-text loss stays at {mean:.2f}, ln(batch size): the model matches nothing "
                    "yet. Check that captions belong to their images; otherwise lower the learning rates or "
                    "train longer",
                )

    def _validate(self) -> None:
        progress = self.progress
        if self.val is None:
            return
        result = validate(self._judge(), self.val)
        compute = self.cost.of(progress.forwards)
        self.emit("eval", compute=compute, **result.metrics)
        if result.metrics["rsum"] > progress.best:
            progress.best, progress.best_metrics = result.metrics["rsum"], result.metrics
            self._publish_best()

    def _judge(self) -> TwoTower:
        """The weights that are evaluated: averaged ones where the recipe averages."""
        return self.model if self.average is None else self.average.module

    def _publish_best(self) -> None:
        def write(folder: Path) -> None:
            self._judge().save(folder)
            (folder / "recipe.yaml").write_text(dump_recipe(self.recipe), encoding="utf-8")

        publish(self.folder, "best", f"best-{self.progress.step:08d}", write)

    def _save(self) -> None:
        progress = self.progress
        now = time.monotonic()
        progress.seconds, self.since = progress.seconds + now - self.since, now
        tensors = {"bank.image": self.bank.image, "bank.text": self.bank.text}
        if self.round is not None:
            tensors |= {
                "round.image": torch.from_numpy(self.round.image),
                "round.text": torch.from_numpy(self.round.text),
                "round.cluster": torch.from_numpy(self.round.cluster),
            }
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}

        def write(folder: Path) -> None:
            save_training(folder, self.model, self.optimizer, tensors, dataclasses.asdict(progress))
            (folder / "recipe.yaml").write_text(dump_recipe(self.recipe), encoding="utf-8")

        publish(self.folder, "last", f"step-{progress.step:08d}", write)

    def _restore(self) -> None:
        tensors, progress = load_training(self.folder, self.model, self.optimizer)
        try:
            self.progress = Progress(**progress)
            self.bank.image.copy_(tensors["bank.image"])
            self.bank.text.copy_(tensors["bank.text"])
            if "round.image" in tensors:
                self.round = Round(
                    *(tensors[f"round.{name}"].numpy() for name in ("image", "text", "cluster"))
                )
            if self.average is not None:
                prefix = "average."
                state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                self.average.load_state_dict(state)
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"{self.folder / 'last'}: this checkpoint does not fit the run's data: {error}"
            ) from error

    def _finish(self) -> dict[str, Any]:
        progress = self.progress
        if self.val is None:
            self._publish_best()
        summary = {
            "metrics": progress.best_metrics,
            "forwards": progress.forwards,
            "compute": self.cost.of(progress.forwards),
            "minutes": progress.seconds / 60,
            "epochs": self.recipe.epochs,
            "seed": self.recipe.seed,
        }
        partial_path = self.folder / "summary.json.partial"
        partial_path.write_text(json.dumps(summary, indent=2), encoding="utf-8")
        partial_path.replace(self.folder / "summary.json")
        return summary

    def _steps_per_epoch(self, stage: Stage) -> int:
        size, pairs = self.recipe.train.batch_size, len(self.data.pairs)
        if stage.losses.image_text > 0 or stage.batches.kind == "clustered":
            return max(1, pairs // size)
        images = len(self.data.images_alone) if stage.losses.image_image > 0 else 0
        texts = len(self.data.texts_alone) if stage.losses.text_text > 0 else 0
        return max(1, (pairs + max(images, texts)) // size)

    def _check_data(self) -> None:
        for stage in self.recipe.stages:
            missing = losses_possible(stage.losses, self.data)
            if missing:
                raise DataError(
                    f"stage {stage.name!r} wants the losses {', '.join(missing)}, but {self.recipe.data.root} "
                    "holds fewer than two items for them: give captions and images, or set their weight to 0"
                )
            drops = any(
                isinstance(m, torch.nn.Dropout) and m.p > 0 for m in self.model.text.backbone.modules()
            )
            if stage.losses.text_text > 0 and stage.views.text == "dropout" and not drops:
                raise RecipeError(
                    f"stage {stage.name!r}: views.text=dropout needs a text tower with dropout, and this one has "
                    "none: set model.dropout=0.1, or views.text=sibling"
                )

    def _report_problems(self, problems: list[Problem]) -> None:
        if problems:
            path = self.folder / "skipped.txt"
            path.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
            self.emit("note", text=f"{len(problems)} problems in the data were skipped; {path} lists them")


def _claim(run: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run folder, or check that the one that is there can be gone on with."""
    kept = run / "recipe.yaml"
    if resume:
        if not kept.is_file():
            raise CheckpointError(f"{run}: nothing to resume: there is no recipe.yaml in it")
        before = load_recipe(kept)
        if before != recipe:
            raise RecipeError(
                f"{run} was begun with another recipe; these differ: {'; '.join(_differences(before, recipe))}. "
                "Resume without overrides, or begin a new run"
            )
        return
    if run.exists() and any(run.iterdir()):
        raise CheckpointError(
            f"{run} is not empty: choose another folder with --out, or go on with --resume {run}"
        )
    run.mkdir(parents=True, exist_ok=True)
    partial_path = kept.with_suffix(".partial")
    partial_path.write_text(dump_recipe(recipe), encoding="utf-8")
    partial_path.replace(kept)


def _differences(before: Recipe, after: Recipe) -> list[str]:
    def leaves(node: Any, key: str = "") -> dict[str, Any]:
        if isinstance(node, dict):
            return {k: v for name, child in node.items() for k, v in leaves(child, f"{key}.{name}").items()}
        if isinstance(node, list):
            return {k: v for i, child in enumerate(node) for k, v in leaves(child, f"{key}.{i}").items()}
        return {key.lstrip("."): node}

    old, new = leaves(before.model_dump(mode="json")), leaves(after.model_dump(mode="json"))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed]


def _cost(model: TwoTower, data: Dataset) -> TowerCost:
    lengths = data.captions.lengths()
    return tower_cost(model, float(lengths.mean()) if len(lengths) else 0.0)


def _average(model: TwoTower, decay: float | None) -> Any:
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def _number(*parts: int) -> int:
    """One seed from several."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
