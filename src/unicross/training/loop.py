"""The training loop: stages, epochs, steps.

All randomness is derived from (seed, stage, epoch, step), so that a resumed run needs no random state: it
makes the same plan, views and dropout as the run that was killed.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from unicross.batches import Plan
from unicross.data.records import Problem
from unicross.device import autocast
from unicross.errors import TrainingStopped
from unicross.model import TwoTower
from unicross.prefetch import prefetch
from unicross.run import RunFolder, Summary
from unicross.stage import Stage
from unicross.streams import stream
from unicross.training.batch import Batch, Sender, make_batch
from unicross.training.checks import notes_before, nothing_learned
from unicross.training.cost import step_forwards, tower_cost
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object, size
from unicross.training.event_log import EventLog
from unicross.training.head_fitting import fit_heads
from unicross.training.optim import freeze, schedule_shape, set_rates, warming_up
from unicross.training.plan import plan_epoch, steps_per_epoch
from unicross.training.selection import Selection
from unicross.training.sharding import clip_gradients
from unicross.training.signals import StopRequest
from unicross.training.state import State
from unicross.training.step import backward
from unicross.training.step_log import GRAD_NORM, StepLog
from unicross.wording import counted


class Loop:
    """One process's part in a run. `log` is None in all but the first, which alone writes."""

    def __init__(
        self,
        run: RunFolder,
        state: State,
        data: Dataset,
        val: Dataset | None,
        log: EventLog | None,
        new_model: Callable[..., TwoTower],
        elsewhere: Mapping[str, Dataset],
        stop: StopRequest,
    ) -> None:
        """`new_model` makes the model that the run began with; `elsewhere` is other data to evaluate on."""
        self.run, self.state, self.data, self.log = run, state, data, log
        self.new_model, self.stop = new_model, stop
        self.recipe, self.progress, self.model = state.recipe, state.progress, state.model
        self.send = Sender(self.model.device)
        self.autocast = partial(autocast, self.model.device, self.recipe.train.precision)
        lengths = data.captions.lengths()
        self.cost = tower_cost(self.model, float(lengths.mean()) if len(lengths) else 0.0)
        self.selection = Selection(run, state, self.cost, val, elsewhere, self.emit)
        batch_size = self.recipe.train.batch_size
        self.steps = [steps_per_epoch(data, stage, batch_size) * stage.epochs for stage in self.recipe.stages]
        self.clock = time.monotonic()  # when `progress.seconds` was last brought up to date
        self.saved_at = self.clock

    def go(self) -> Summary:
        stages, progress = self.recipe.stages, self.progress
        self.emit(
            "start",
            epochs=self.recipe.epochs,
            steps=sum(self.steps),
            items=len(self.data.items),
            run=str(self.run.path),
            preparation=self.model.preparation(),
        )
        begins_trained = self.recipe.train.start_from is not None or self.recipe.model.pair is not None
        if progress.step == 0 and begins_trained:
            self.selection.look()  # what the weights can do untrained: a run's best is never worse
        while progress.stage < len(stages):
            stage = stages[progress.stage]
            freeze(self.model, stage.freeze, stage.freeze_layers)
            if stage.epochs == 0:
                self._fit_heads(stage)
                self.selection.look()
                self._save()
            while progress.epoch < stage.epochs and not self.selection.out_of_patience():
                self._epoch(stage)
            if stage.losses.image_text == 0:
                self.state.bank.forget()  # none of its steps made new features
            progress.stage, progress.epoch = progress.stage + 1, 0
            self.state.round = None
        self.selection.finish(self.new_model, self.data)
        summary = Summary(
            metrics=progress.best_metrics,
            forgetting=progress.best_elsewhere,
            forwards=progress.forwards,
            compute=self.cost.of(progress.forwards),
            minutes=progress.seconds / 60,
            epochs=self.recipe.epochs,
            seed=self.recipe.seed,
        )
        if self.log is not None:
            self.run.write_summary(summary)
        return summary

    def emit(self, kind: str, **values: Any) -> None:
        if self.log is None:
            return
        progress = self.progress
        stage = self.recipe.stages[min(progress.stage, len(self.recipe.stages) - 1)]
        where = {"step": progress.step, "epoch": progress.turn, "stage": stage.name}
        self.log.emit({"kind": kind, **where, **values})

    def tell_notes(self, problems: list[Problem], notes: list[str]) -> None:
        for note in notes + notes_before(self.recipe, self.model, self.data.captions, size()):
            self.emit("note", text=note)
        skipped = [problem for problem in problems if problem.stops]
        for problem in problems:
            if not problem.stops:
                self.emit("note", text=f"not read: {problem.where}: {problem.what}")
        if skipped and self.log is not None:
            path = self.run.write_skipped([str(problem) for problem in problems])
            self.emit(
                "note", text=f"skipped {counted(len(skipped), 'problem')} in the data, listed in {path}"
            )

    def _epoch(self, stage: Stage) -> None:
        """The rest of the epoch where the run stands, with validation and a checkpoint at its end."""
        progress = self.progress
        plan, figures = self._plan(stage)
        if figures:
            self.emit("round", **figures)
        self.model.train()
        began, first_batch = time.monotonic(), progress.batch
        log = StepLog(stage, self.emit)
        for batch in self._batches(stage, plan):
            set_rates(self.state.optimizer, stage.optim, self._schedule(len(plan)))
            losses = self._step(stage, batch)
            progress.batch, progress.step = progress.batch + 1, progress.step + 1
            log.record(progress.step, self.state.optimizer, batch, losses)
            self._checkpoint_if_due(log, is_last=progress.batch == len(plan))
        log.flush()
        note = self._nothing_learned(stage, len(plan), log.image_text)
        if note:
            self.emit("note", text=note)
        seconds = time.monotonic() - began
        items = sum(map(len, plan[first_batch:]))
        progress.epoch, progress.batch, progress.turn = progress.epoch + 1, 0, progress.turn + 1
        self.emit(
            "epoch",
            seconds=seconds,
            pairs_per_second=items / max(seconds, 1e-9),
            batches=len(plan),
            compute=self.cost.of(progress.forwards),
        )
        self.selection.look()
        self._save()

    def _plan(self, stage: Stage) -> tuple[Plan, dict[str, float]]:
        """What `plan_epoch` gives; at the beginning of a stage heads come before clusters."""
        if stage.fit_heads and self.progress.epoch == self.progress.batch == 0:
            self._fit_heads(stage)
        return plan_epoch(self.state, self.data)

    def _fit_heads(self, stage: Stage) -> None:
        began = time.monotonic()
        self.emit("fitting")
        recipe, progress = self.recipe, self.progress
        random = recipe.model.pair is None and recipe.train.start_from is None
        moved = progress.step > 0 or any(earlier.fit_heads for earlier in recipe.stages[: progress.stage])
        forwards, matched = fit_heads(
            self.model,
            self.data,
            stream(recipe.seed, "heads", progress.stage),
            stage.losses.objective or self.model.objective,
            new=random and not moved,
            match=stage.match_unpaired,
        )
        progress.count(forwards)
        self.state.bank.forget()  # its features are those of the heads before
        self.emit("heads", seconds=time.monotonic() - began, matched=matched)

    def _batches(self, stage: Stage, plan: Plan) -> Iterator[Batch]:
        """The batches of a plan from where the run stands, made and sent ahead of the steps."""
        seed, round_, progress = self.recipe.seed, self.state.round, self.progress
        assert round_ is not None
        where, turn = (progress.stage, progress.epoch), progress.turn

        def prepare(number: int) -> Callable[[], Batch]:
            rng = stream(seed, "batch", *where, number)
            return self.send(make_batch(self.data, plan[number], stage, round_, turn, rng))

        for arrived in prefetch(prepare, range(progress.batch, len(plan))):
            yield arrived()

    def _schedule(self, batches: int) -> float:
        """Factor on the learning rates of the step that is about to be taken, in an epoch of so many."""
        progress = self.progress
        step = progress.epoch * batches + progress.batch
        return schedule_shape(self.recipe.stages, self.steps, progress.stage, step)

    def _step(self, stage: Stage, batch: Batch) -> dict[str, Tensor]:
        """Move the model by one batch. Returns the unweighted losses by name, and `grad_norm`."""
        self.state.optimizer.zero_grad(set_to_none=True)
        done = backward(
            self.model, batch, stage, self.autocast, self.recipe.train.micro_batch, self.state.bank
        )
        norm = clip_gradients(self.model.parameters(), self.recipe.train.clip_norm or math.inf)
        self.state.optimizer.step()
        self.model.clamp_temperature()
        image, text, pairs = done.images.cross, done.texts.cross, batch.pairs
        if image is not None and text is not None:
            self.state.bank.put(batch.image_ids[:pairs], image[:pairs], text[:pairs])
        images, texts = len(batch.image_ids), len(batch.text_ids)
        self.progress.count(step_forwards(stage, images, texts, self.model))
        return done.losses | {GRAD_NORM: norm}

    def _checkpoint_if_due(self, log: StepLog, is_last: bool) -> None:
        """Save where the last checkpoint is old, unless the epoch is about to end and save anyway.

        Several processes, which may have to write it together, agree on it only when they look at the losses:
        to agree is to wait for each other.
        """
        if is_last or (size() > 1 and log.unseen):
            return

        def is_due() -> bool:
            is_old = time.monotonic() - self.saved_at > 60 * self.recipe.train.save_minutes
            return is_old or self.stop.signal is not None

        if broadcast_object(is_due):
            log.flush()  # no step goes into a checkpoint unseen
            self._save()

    def _nothing_learned(self, stage: Stage, batches: int, image_text: list[float]) -> str | None:
        """A sentence where the epoch, once its schedule has warmed up, stayed at chance."""
        progress = self.progress
        last_step = (progress.epoch + 1) * batches - 1
        if warming_up(self.recipe.stages, self.steps, progress.stage, last_step):
            return None
        pairs = min(self.recipe.train.batch_size, len(self.data.pairs))
        return nothing_learned(image_text, pairs, stage)

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds, self.clock = self.progress.seconds + now - self.clock, now
        if self.log is not None:
            self.log.sync()
        self.state.publish_last(self.run)
        self.saved_at = time.monotonic()
        number = broadcast_object(lambda: self.stop.signal)
        if number is not None:
            raise TrainingStopped(
                f"stopped by {signal.Signals(number).name} after step {self.progress.step}, and saved; "
                f"go on with: unicross train --resume {self.run.path}",
                number,
            )
