"""What a run tells while it goes: events, and the file that keeps them, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from unicross.files import write_text
from unicross.reading import LARGEST_TEXT, read_bytes

Event = Mapping[str, Any]
"""A flat mapping with a `kind`: `step` (losses, learning rate), `epoch` (speed), `heads` (fitted before a
stage), `round` (clusters), `eval` (validation metrics), `forgetting` (metrics on other data),
`interpolation` (a mix of weights), `hubness` (its correction), `note` (a sentence for the user), `start`,
`decoding`, `fitting` (heads are about to be)."""

Listener = Callable[[Event], None]

OF_STEPS_TO_COME = ("heads", "round")
"""Kinds that speak of the steps to come: a run that resumes at their step tells them again."""


def read_events(path: Path, *kinds: str) -> list[Event]:
    """The events in a file, of these kinds or all; a last line that a kill cut short is dropped."""
    events: list[Event] = []
    for line in read_bytes(path, LARGEST_TEXT).splitlines() if path.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:  # torn
            break
        if not isinstance(event, dict) or "kind" not in event:  # not ours
            break
        events.append(event)
    return [event for event in events if not kinds or event["kind"] in kinds]


def open_events(path: Path, resume_at: int | None) -> TextIO:
    """The file that events are appended to, a line each.

    `resume_at`: drop what a killed run wrote after its checkpoint at this step; None begins anew.
    """
    before = [] if resume_at is None else read_events(path)
    lines = (json.dumps(event) + "\n" for event in before if _is_before(event, resume_at or 0))
    write_text(path, "".join(lines))
    return path.open("a", buffering=1, encoding="utf-8")


def _is_before(event: Event, step: int) -> bool:
    at = event.get("step", 0)
    return at < step or (at == step and event["kind"] not in OF_STEPS_TO_COME)
