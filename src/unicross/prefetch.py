"""Making things ready in a thread while the caller works on those before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

OnProgress = Callable[[int, int], object]
"""Called with how many are done, and how many there are."""


def prefetch(make: Callable[[T], R], wanted: Sequence[T], depth: int = 2) -> Iterator[R]:
    """`make` of each in order, up to `depth` of them being made in a thread while the caller works."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        waiting = [pool.submit(make, one) for one in wanted[:depth]]
        for following in range(depth, len(wanted) + depth):
            if not waiting:
                return
            ready = waiting.pop(0)
            if following < len(wanted):
                waiting.append(pool.submit(make, wanted[following]))
            yield ready.result()
