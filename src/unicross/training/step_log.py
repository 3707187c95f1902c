"""The losses of an epoch's steps, looked at every few of them: each look waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unicross.stage import Stage
from unicross.training.batch import Batch
from unicross.training.checks import check_finite

LOG_EVERY = 10
"""Steps between two looks."""
GRAD_NORM = "grad_norm"


class StepLog:
    """Keeps the losses of steps on the device until it is time to look, then tells them as events."""

    def __init__(self, stage: Stage, emit: Callable[..., None]) -> None:
        """`emit` takes the kind of an event and its values."""
        self.image_text: list[float] = []
        """The image-text losses that were looked at."""
        self._stage, self._emit = stage, emit
        self._waiting: list[tuple[dict[str, Any], dict[str, Tensor]]] = []
        self._began, self._steps = time.monotonic(), 0

    @property
    def unseen(self) -> int:
        """Steps whose losses nobody has looked at."""
        return len(self._waiting)

    def record(
        self, step: int, optimizer: torch.optim.Optimizer, batch: Batch, losses: dict[str, Tensor]
    ) -> None:
        """Note the losses and the gradient's norm of a step of the run, and look when it is time.

        Raises TrainingError where one of those that are looked at is not finite.
        """
        rate = next(group["lr"] for group in optimizer.param_groups if group["part"] == "head")
        pairs = max(len(batch.image_ids), len(batch.text_ids))
        self._waiting.append(({"step": step, "lr": rate, "pairs": pairs}, losses))
        self._steps += 1
        if len(self._waiting) == LOG_EVERY:
            self.flush()

    def flush(self) -> None:
        """Look at what is waiting. Raises TrainingError as `record`."""
        if not self._waiting:
            return
        values = iter(torch.stack([v for _, losses in self._waiting for v in losses.values()]).tolist())
        pairs = self._waiting[-1][0]["pairs"]
        speed = self._steps * pairs / max(time.monotonic() - self._began, 1e-9)
        for where, tensors in self._waiting:
            losses: dict[str, float] = {name: next(values) for name in tensors}
            check_finite(losses, where["step"], self._stage.name)
            norm = losses.pop(GRAD_NORM)
            loss = sum(getattr(self._stage.losses, name) * value for name, value in losses.items())
            each = {f"loss/{name}": value for name, value in losses.items()}
            self._emit("step", **where, loss=loss, **each, grad_norm=norm, pairs_per_second=speed)
            self.image_text += [losses["image_text"]] if "image_text" in losses else []
        self._waiting = []
