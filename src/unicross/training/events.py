"""What a run tells: events, written to `metrics.jsonl` and TensorBoard and shown by whoever listens.

An event is a flat mapping with a `kind`: `step` (losses, learning rate), `epoch` (speed), `heads` (fitted
before a stage), `round` (clusters), `eval` (validation metrics), `note` (a sentence for the user), `start`,
`decoding`, `fitting` (heads are about to be).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from unicross.files import write_text

Event = Mapping[str, Any]
Listener = Callable[[Event], None]

LOGGED = ("step", "epoch", "heads", "round", "eval", "note")
AHEAD = ("heads", "round")
"""Kinds that speak of the steps to come: a run that resumes at their step tells them again."""


class EventLog:
    """Appends events to RUN/metrics.jsonl, and scalars to TensorBoard where it is installed."""

    def __init__(self, run: Path, resume_at: int | None, listener: Listener | None) -> None:
        """`resume_at`: drop what a killed run wrote after its checkpoint at this step; None begins anew."""
        self._path = run / "metrics.jsonl"
        self._listener = listener
        self._rewind(resume_at)
        self._file: TextIO = self._path.open("a", buffering=1, encoding="utf-8")
        self._board = _tensorboard(run, resume_at)

    def _rewind(self, step: int | None) -> None:
        kept: list[str] = []
        if step is not None and self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    break  # the line that the kill cut short
                if event["step"] < step or (event["step"] == step and event["kind"] not in AHEAD):
                    kept.append(line + "\n")
        write_text(self._path, "".join(kept))

    def emit(self, event: Event) -> None:
        if event["kind"] in LOGGED:
            self._file.write(json.dumps(event) + "\n")
            if self._board is not None:
                for name, value in event.items():
                    if isinstance(value, float):
                        self._board.add_scalar(f"{event['kind']}/{name}", value, event["step"])
        if self._listener is not None:
            self._listener(event)

    def sync(self) -> None:
        """Have all events on disk, as a checkpoint of their step is about to be."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _tensorboard(run: Path, resume_at: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    after = None if resume_at is None else resume_at + 1
    return SummaryWriter(str(run / "tensorboard"), purge_step=after)
