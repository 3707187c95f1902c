"""A value that others may change, read again once what was read is old."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cached(Generic[T]):
    """What `read` gave within the last `max_age_s` seconds. Threads may share it."""

    def __init__(self, read: Callable[[], T], max_age_s: float) -> None:
        self._read = read
        self._max_age_s = max_age_s
        self._held: tuple[float, T] | None = None  # when it was read, and the value: one tuple, for threads

    def get(self) -> T:
        """The value; it is read now where it is too old. Raises what `read` raises."""
        held = self._held
        if held is not None and time.monotonic() - held[0] <= self._max_age_s:
            return held[1]
        value = self._read()
        self.put(value)
        return value

    def put(self, value: T) -> None:
        """Hold a value that was just written, in place of reading it."""
        self._held = (time.monotonic(), value)

    def expire(self) -> None:
        """Have it read at the next `get`."""
        self._held = None
