"""Making things ready in a thread while the caller works on those before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

OnProgress = Callable[[int, int], object]
"""What long work calls with the number of things done and of all."""


def prefetch(make: Callable[[T], R], inputs: Sequence[T], depth: int = 2) -> Iterator[R]:
    """`make` of each input in order, up to `depth` of them being made in a thread while the caller works."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        waiting = [pool.submit(make, value) for value in inputs[:depth]]
        for following in range(depth, len(inputs) + depth):
            if not waiting:
                return
            ready = waiting.pop(0)
            if following < len(inputs):
                waiting.append(pool.submit(make, inputs[following]))
            yield ready.result()


def made_ahead(things: Iterable[T]) -> Iterator[T]:
    """The things in their order, each when the one after it has been made as well: what was begun on a GPU is
    asked for when the GPU has its next work."""
    waiting: list[T] = []
    for thing in things:
        waiting.append(thing)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
