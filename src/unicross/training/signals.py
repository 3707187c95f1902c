"""Being asked to stop: the step is finished and saved, so that nothing is lost (Slurm, spot machines,
Ctrl-C)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StopRequest:
    """The signal that asked to stop, if one did."""

    signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: note the first; a second one ends the process at once."""
        del frame
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = number


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within, signals that would end the process are noted. Outside the main thread they cannot be, and end
    it."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
