"""The training loop: stages, epochs, steps.

All randomness is derived from (seed, stage, epoch, step), so that a resumed run needs no random state: it
makes the same plan, views and dropout as the run that was killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unicross.batches import Plan
from unicross.config import Recipe, Stage
from unicross.data.records import Problem
from unicross.device import autocast
from unicross.errors import TrainingError, UnicrossError
from unicross.model import TwoTower
from unicross.prefetch import prefetch
from unicross.training.checks import check_finite, check_recipe_fits, cut_captions, nothing_learned
from unicross.training.cost import step_forwards, tower_cost
from unicross.training.dataset import Dataset, cached_side, make_dataset, read_splits, validate
from unicross.training.distributed import check_same, from_first, is_first, joined, size
from unicross.training.events import EventLog, Listener
from unicross.training.folder import CACHE, check_claim, claim, claim_data, write_summary
from unicross.training.heads import fit_heads
from unicross.training.optim import freeze, schedule_shape, set_rates, warming_up
from unicross.training.planning import plan_epoch
from unicross.training.prepare import Sender, make_batch
from unicross.training.rounds import frozen_text, steps_per_epoch
from unicross.training.sharding import clip_gradients
from unicross.training.state import State, make_model
from unicross.training.step import Batch, backward

LOG_EVERY = 10
"""Steps between looks at the losses; each look waits for the device."""
GRAD_NORM = "grad_norm"


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train a recipe into a run folder, together with the other processes where torchrun started several.

    Args:
        recipe: what to train; on resuming, equal to that of the run.
        run: a new or empty folder, or with `resume` one of a run that was cut short; the first process's.
        listener: hears every event (see `events`) of the first process.
        device: `cpu`, `cuda`, ...; None picks.

    Returns:
        What `run/summary.json` says: best validation `metrics`, `forwards`, `compute` in GFLOP (see `cost`),
        `minutes`, `epochs`, `seed`.

    Raises:
        RecipeError, DataError, CheckpointError, TrainingError: each says what to do.
    """
    try:
        with joined(device) as own:
            run = from_first(lambda: check_claim(run, recipe, resume))
            return _train(recipe, run, resume, listener if is_first() else None, own)
    except UnicrossError:
        if not resume:
            with suppress(OSError):  # unless there is something in it
                run.rmdir()
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run}: out of memory: set train.micro_batch (the gradient stays that of the whole batch) or "
            "lower train.batch_size, in a new run"
        ) from error
    except OSError as error:
        raise TrainingError(f"{run}: {error}; mend that and go on with --resume {run}") from error


def _train(
    recipe: Recipe, run: Path, resume: bool, listener: Listener | None, device: torch.device
) -> dict[str, Any]:
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    train_items, val_items, problems = read_splits(recipe)
    if resume:
        from_first(lambda: claim_data(run, train=train_items, val=val_items))
    model = make_model(recipe, train_items, device)

    def decoding(what: str, done: int, total: int) -> None:
        if listener is not None:
            listener({"kind": what, "done": done, "total": total})

    build = partial(make_dataset, model=model, data=recipe.data, where=run / CACHE, progress=decoding)
    data, bad = build(train_items, side=cached_side(recipe.data, recipe.model))
    val, bad_val = build(val_items, side=recipe.model.image_size) if val_items else (None, [])
    kept = [part.items.ids.to_pylist() for part in (data, val) if part is not None]
    check_same(list(chain.from_iterable(kept)), recipe.data.root)
    check_recipe_fits(recipe, data, val, model)
    if not resume:
        from_first(lambda: claim(run, recipe, train=train_items, val=val_items))
    state = State(model, recipe, len(data.items))
    going_on = resume and (run / "last").exists()
    if going_on:
        state.restore(run)
    log = EventLog(run, state.progress.step if going_on else None, listener) if is_first() else None
    try:
        loop = _Loop(run, state, data, val, log, partial(make_model, recipe, train_items, device))
        if not going_on:
            loop.tell_notes(problems + bad + bad_val)
        return loop.go()
    finally:
        if log is not None:
            log.close()


class _Loop:
    """One process's part in a run. `log` is None in all but the first, which alone writes."""

    def __init__(
        self,
        run: Path,
        state: State,
        data: Dataset,
        val: Dataset | None,
        log: EventLog | None,
        new_model: Callable[[], TwoTower],
    ) -> None:
        self.run, self.state, self.data, self.val, self.log = run, state, data, val, log
        self.new_model = new_model
        self.recipe, self.progress, self.model = state.recipe, state.progress, state.model
        self.send = Sender(self.model.device)
        self.autocast = partial(autocast, self.model.device, self.recipe.train.precision)
        lengths = data.captions.lengths()
        self.cost = tower_cost(self.model, float(lengths.mean()) if len(lengths) else 0.0)
        size = self.recipe.train.batch_size
        self.steps = [steps_per_epoch(data, stage, size) * stage.epochs for stage in self.recipe.stages]
        self.clock = time.monotonic()  # when `progress.seconds` was last brought up to date

    def go(self) -> dict[str, Any]:
        stages, progress = self.recipe.stages, self.progress
        self.emit(
            "start",
            epochs=self.recipe.epochs,
            steps=sum(self.steps),
            items=len(self.data.items),
            run=str(self.run),
        )
        if progress.step == 0 and any(stage.batches.judge == "frozen_text" for stage in stages):
            self.state.frozen_text, spent = frozen_text(self.model, self.data)
            progress.count(spent)
        while progress.stage < len(stages):
            stage = stages[progress.stage]
            freeze(self.model, stage.freeze)
            while progress.epoch < stage.epochs:
                self._epoch(stage)
            if stage.losses.image_text == 0:
                self.state.bank.forget_features()  # none of its steps made new ones
            progress.stage, progress.epoch = progress.stage + 1, 0
            self.state.round = self.state.partner = self.state.awake = None
        if self.val is None:
            self.state.publish_best(self.run)
        summary = {
            "metrics": progress.best_metrics,
            "forwards": progress.forwards,
            "compute": self.cost.of(progress.forwards),
            "minutes": progress.seconds / 60,
            "epochs": self.recipe.epochs,
            "seed": self.recipe.seed,
        }
        if self.log is not None:
            write_summary(self.run, summary)
        return summary

    def emit(self, kind: str, **values: Any) -> None:
        if self.log is None:
            return
        progress = self.progress
        stage = self.recipe.stages[min(progress.stage, len(self.recipe.stages) - 1)]
        where = {"step": progress.step, "epoch": progress.turn, "stage": stage.name}
        self.log.emit({"kind": kind, **where, **values})

    def tell_notes(self, problems: list[Problem]) -> None:
        if size() > 1 and self.recipe.data.cache == "memory":
            self.emit(
                "note",
                text=f"{size()} processes keep all decoded pictures each: data.cache=disk shares one copy",
            )
        if size() == 1 and self.recipe.train.shard:
            self.emit(
                "note", text="train.shard has no effect on a single process: start several with torchrun"
            )
        if cut := cut_captions(self.data.captions.lengths(), self.recipe.data.max_tokens):
            self.emit("note", text=cut)
        if problems and self.log is not None:
            path = self.run / "skipped.txt"
            path.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
            self.emit("note", text=f"{len(problems)} problems in the data were skipped; {path} lists them")

    def _epoch(self, stage: Stage) -> None:
        progress = self.progress
        plan, figures = self._plan(stage)
        if figures:
            self.emit("round", **figures)
        self.model.train()
        judge, partner = self.state.judge, self.state.partner
        cluster = None if self.state.round is None else self.state.round.cluster
        seeds = (self.recipe.seed, progress.stage, progress.epoch)

        def prepare(number: int) -> Callable[[], Batch]:
            seed = (*seeds, number)
            return self.send(
                make_batch(self.data, plan[number], stage, judge, progress.turn, seed, partner, cluster)
            )

        numbers = range(progress.batch, len(plan))
        began = saved = time.monotonic()
        waiting: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        image_text: list[float] = []
        for number, arrived in zip(numbers, prefetch(prepare, numbers), strict=True):
            batch = arrived()
            shape = schedule_shape(
                self.recipe.stages, self.steps, progress.stage, progress.epoch * len(plan) + number
            )
            set_rates(self.state.optimizer, stage.optim, shape)
            parts = self._step(stage, batch)
            progress.batch, progress.step = number + 1, progress.step + 1
            pairs = max(len(batch.image_ids), len(batch.text_ids))
            where = {"step": progress.step, "lr": stage.optim.head_lr * shape, "pairs": pairs}
            waiting.append((where, parts))
            last = number + 1 == len(plan)
            look = len(waiting) == LOG_EVERY or last
            asked = not last and (look or size() == 1)  # several processes wait for each other to agree
            due = asked and self._due(saved)
            if look or due:  # no step goes into a checkpoint unseen
                speed = (number + 1 - numbers.start) * pairs / max(time.monotonic() - began, 1e-9)
                image_text += self._look(stage, waiting, speed)
                waiting = []
            if due:
                self._save()
                saved = time.monotonic()
        steps_done = (progress.epoch + 1) * len(plan) - 1
        if not warming_up(self.recipe.stages, self.steps, progress.stage, steps_done):
            note = nothing_learned(image_text, min(self.recipe.train.batch_size, len(self.data.pairs)), stage)
            if note:
                self.emit("note", text=note)
        seconds = time.monotonic() - began
        items = sum(len(plan[number]) for number in numbers)
        progress.epoch, progress.batch, progress.turn = progress.epoch + 1, 0, progress.turn + 1
        self.emit(
            "epoch",
            seconds=seconds,
            pairs_per_second=items / max(seconds, 1e-9),
            batches=len(plan),
            compute=self.cost.of(progress.forwards),
        )
        self._validate()
        self._save()

    def _plan(self, stage: Stage) -> tuple[Plan, dict[str, float]]:
        """What `plan_epoch` gives, and at the beginning of a stage the model made ready for it.

        A fresh stage's first round is its teacher's; of any other, heads come before clusters.
        """
        begins = self.progress.epoch == self.progress.batch == 0
        if begins and stage.heads_first and not stage.fresh:
            self._fit_heads()
        plan, figures = plan_epoch(self.state, self.data)
        if begins and stage.fresh:
            self.state.start_over(self.new_model())
            if stage.heads_first:
                self._fit_heads()
        return plan, figures

    def _fit_heads(self) -> None:
        began = time.monotonic()
        self.emit("fitting")
        seed = int(np.random.SeedSequence([self.recipe.seed, self.progress.stage]).generate_state(1)[0])
        self.progress.count(fit_heads(self.model, self.data, seed))
        self.state.follow()
        self.emit("heads", seconds=time.monotonic() - began)

    def _step(self, stage: Stage, batch: Batch) -> dict[str, Tensor]:
        """Move the model by one batch. Returns the unweighted losses by name, and `grad_norm`."""
        self.state.optimizer.zero_grad(set_to_none=True)
        done = backward(self.model, batch, stage, self.autocast, self.recipe.train.micro_batch)
        norm = clip_gradients(self.model.parameters(), self.recipe.train.clip_norm or math.inf)
        self.state.optimizer.step()
        self.model.clamp_temperature()
        self.state.take_average()
        image, text, pairs = done.features.image, done.features.text, batch.pairs
        if image is not None and text is not None and done.pair_loss is not None:
            self.state.bank.put(batch.image_ids[:pairs], image[:pairs], text[:pairs], done.pair_loss)
        images, texts = len(batch.image_ids), len(batch.text_ids)
        self.progress.count(step_forwards(stage, images, texts, self.model))
        return done.losses | {GRAD_NORM: norm}

    def _look(
        self, stage: Stage, waiting: list[tuple[dict[str, Any], dict[str, Tensor]]], speed: float
    ) -> list[float]:
        """Log the losses of the last steps and stop where one is not finite. Returns the image-text ones."""
        values = iter(torch.stack([value for _, parts in waiting for value in parts.values()]).tolist())
        image_text = []
        for where, tensors in waiting:
            parts: dict[str, float] = {name: next(values) for name in tensors}
            check_finite(parts, where["step"], stage.name)
            norm = parts.pop(GRAD_NORM)
            loss = sum(getattr(stage.losses, name) * value for name, value in parts.items())
            each = {f"loss/{name}": value for name, value in parts.items()}
            self.emit("step", **where, loss=loss, **each, grad_norm=norm, pairs_per_second=speed)
            image_text += [parts["image_text"]] if "image_text" in parts else []
        return image_text

    def _validate(self) -> None:
        progress = self.progress
        looks = progress.turn % self.recipe.train.validate_every == 0 or progress.turn == self.recipe.epochs
        if self.val is None or not looks:
            return
        metrics = validate(self.state.judged, self.val).metrics
        self.emit("eval", compute=self.cost.of(progress.forwards), **metrics)
        if metrics["rsum"] > progress.best:
            progress.best, progress.best_metrics = metrics["rsum"], metrics
            self.state.publish_best(self.run)

    def _due(self, saved: float) -> bool:
        """Whether the last checkpoint is old; all processes agree, as they may have to write it together."""
        return from_first(lambda: time.monotonic() - saved > 60 * self.recipe.train.save_minutes)

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds, self.clock = self.progress.seconds + now - self.clock, now
        if self.log is not None:
            self.log.sync()
        self.state.publish_last(self.run)
