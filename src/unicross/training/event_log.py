"""What a run tells, written to its folder and to TensorBoard, and told to whoever listens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from unicross.run import Event, Listener, RunFolder

LOGGED = ("step", "epoch", "heads", "round", "eval", "forgetting", "interpolation", "note")
"""Kinds of events that are written; the others are for whoever listens."""


class EventLog:
    """Appends events to a run's log, and scalars to TensorBoard where it is installed."""

    def __init__(self, run: RunFolder, resume_at: int | None, listener: Listener | None) -> None:
        """`resume_at`: drop what a killed run wrote after its checkpoint at this step; None begins anew."""
        self._listener = listener
        self._file = run.open_events(resume_at)
        self._board = _tensorboard(run.path, resume_at)

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
