"""What a run tells, written to its folder and shown by its trackers, and told to whoever listens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress

from unicross.events import Event, Listener
from unicross.run import RunFolder
from unicross.training.trackers import Tracker

LOGGED = ("step", "epoch", "heads", "round", "eval", "forgetting", "interpolation", "hubness", "note")
"""Kinds of events that are written; the others are for whoever listens."""


class EventLog:
    """Appends events to a run's log, and has trackers show their numbers.

    A tracker that fails, such as one whose server is gone, is left out from then on, and a note says so:
    training is worth more than its pictures.
    """

    def __init__(
        self,
        run: RunFolder,
        resume_at: int | None,
        listener: Listener | None,
        trackers: Mapping[str, Tracker],
    ) -> None:
        """`resume_at`: drop what a killed run wrote after its checkpoint at this step; None begins anew."""
        self._listener = listener
        self._trackers = dict(trackers)
        self._file = run.open_events(resume_at)

    def emit(self, event: Event) -> None:
        if event["kind"] in LOGGED:
            self._file.write(json.dumps(event) + "\n")
        if self._listener is not None:
            self._listener(event)
        figures = {f"{event['kind']}/{name}": v for name, v in event.items() if isinstance(v, float)}
        if event["kind"] not in LOGGED or not figures:
            return
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(figures, event["step"])
            except Exception as error:  # each package has errors of its own
                del self._trackers[name]
                text = f"{name} failed and shows nothing from here on: {' '.join(str(error).split())}"
                self.emit({"kind": "note", "step": event["step"], "text": text})

    def sync(self) -> None:
        """Have all events on disk, as a checkpoint of their step is about to be."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the log and the trackers. One that fails at that changes nothing of what came of the run."""
        self._file.close()
        for tracker in self._trackers.values():
            with suppress(Exception):
                tracker.close()
