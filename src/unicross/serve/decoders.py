"""Processes that decode what strangers send, so that a picture which takes too long can be ended.

A thread that decodes cannot be stopped, nor can what a decoder takes of memory be bounded in it. Each process
does one picture at a time; one that exceeds its time is killed, and one that a picture broke is not used
again. They are started when they are needed and stay.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar, cast

from unicross.data.decoding import ImageError
from unicross.serve.protocol import receive, send

T = TypeVar("T")

PROCESSES = min(4, os.cpu_count() or 1)
"""At one time, of uploads and of stored pictures each."""
BYTES_PER_PIXEL = 40
"""Of memory, in the most costly kind of picture (floats, which are stretched)."""
SPARE_BYTES = 300_000_000
"""What decoding takes besides the pixels, the picture's file included."""


ENVIRONMENT = (
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "LANG",
    "LC_ALL",
    "TMPDIR",
)
"""What a decoder sees of the server's variables: no keys and tokens."""
START_S = 60.0
"""Longest time for a process to start, on a busy machine."""


class Busy(Exception):
    """No decoder was free in time."""


class Process:
    """One process that decodes."""

    def __init__(self, memory: int, niceness: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "unicross.serve.decoder", str(memory), str(niceness)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the server, which lets requests finish
        )
        self._ready = False

    def ask(
        self, job: Mapping[str, Any], data: bytes, *, seconds: float, most: int
    ) -> tuple[dict[str, Any], bytes] | None:
        """The answer, of at most `most` bytes; None where it took too long or the process broke down, and so
        cannot be used again."""
        if not self._ready:
            self._ready = self._within(START_S, lambda answers: receive(answers, 0)) is not None

        def work(answers: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
            send(cast(BinaryIO, self._process.stdin), job, data)
            return receive(answers, most)

        return self._within(seconds, work) if self._ready else None

    def _within(self, seconds: float, work: Callable[[BinaryIO], T | None]) -> T | None:
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            return work(cast(BinaryIO, self._process.stdout))
        except (OSError, ValueError, KeyError, TypeError):  # it was killed, or is not itself any more
            return None
        finally:
            timer.cancel()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()


class Decoders:
    """Decoding processes for one kind of work. Threads may share it."""

    def __init__(self, *, seconds: float, max_pixels: int, niceness: int = 0) -> None:
        """`seconds`: the longest time for one picture; `max_pixels`: of the largest picture."""
        self._seconds = seconds
        self._memory, self._niceness = BYTES_PER_PIXEL * max_pixels + SPARE_BYTES, niceness
        self._free = threading.BoundedSemaphore(PROCESSES)
        self._lock = threading.Lock()
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    def run(self, job: Mapping[str, Any], data: bytes, *, wait_s: float) -> tuple[dict[str, Any], bytes]:
        """The answer to a job about a picture (see `decoder.py`).

        Raises ImageError for a picture that is refused, Busy where no process is free
        within `wait_s` seconds.
        """
        if not self._free.acquire(timeout=max(0.0, wait_s)):
            raise Busy
        try:
            answer = self._ask(job, data)
        finally:
            self._free.release()
        if "fault" in answer[0]:
            raise ImageError("the picture", answer[0]["fault"], answer[0]["reason"])
        return answer

    def start(self) -> None:
        """Have one process ready, so that the first picture does not wait for it."""
        process = Process(self._memory, self._niceness)
        with self._lock:
            self._all.add(process)
            self._idle.append(process)

    def close(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            processes = list(self._all)
            self._all.clear()
            self._idle.clear()
        for process in processes:
            process.end()

    def _ask(self, job: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        process = self._take()
        began = time.monotonic()
        answer = process.ask(job, data, seconds=self._seconds, most=self._memory)
        if answer is not None:
            with self._lock:
                self._idle.append(process)
            return answer
        with self._lock:
            self._all.discard(process)
        process.end()
        if time.monotonic() - began >= self._seconds:
            reason = f"it takes more than {self._seconds:g} s to decode"
            raise ImageError("the picture", "too large", reason)
        raise ImageError("the picture", "damaged", "its decoder broke down")

    def _take(self) -> Process:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            process = Process(self._memory, self._niceness)
            self._all.add(process)
            return process
