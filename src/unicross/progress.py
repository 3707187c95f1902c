"""Telling how far long work has come, whoever shows it.

Work that takes a while goes through `track`; who wants to show it listens with `progress_shown_by`. What
nobody listens to costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Shown = Callable[[str, int, int], object]
"""Is told what is being done, how many parts of it are done, and of how many."""

_shown: ContextVar[Shown | None] = ContextVar("progress", default=None)


@contextmanager
def progress_shown_by(shown: Shown) -> Iterator[None]:
    """Whatever is tracked meanwhile, in this thread, is told to `shown`."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def track(what: str, parts: Iterable[T], total: int) -> Iterator[T]:
    """The parts, one after the other, as the work on those before is done. `total`: how many they are."""
    shown = _shown.get()
    if shown is None:
        yield from parts
        return
    for done, part in enumerate(parts):
        shown(what, done, total)
        yield part
    shown(what, total, total)
