"""Concurrent queries share forwards of the model.

Requests run in threads of their own and hand what is to be encoded to one worker. It takes what has
gathered while it was busy, so a lone query never waits and many of them form batches by themselves.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from unicross.data.images import Pixels
from unicross.data.preparation import PictureRules
from unicross.embed import Encoder, Vectors
from unicross.store.base import Vector

MAX_BATCH = 32
"""Most queries in one forward."""

Input = str | Pixels
"""A text, or a square [S, S, 3]."""


class BatchedEncoder:
    """An encoder like the one inside, for use by many threads at once."""

    def __init__(self, inner: Encoder, on_batch: Callable[[int], object] = lambda size: None) -> None:  # noqa: ARG005
        """`on_batch` is called with the size of every batch."""
        self._inner = inner
        self._on_batch = on_batch
        self._queue: queue.SimpleQueue[tuple[Input, Future[Vector]] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._worker.start()

    @property
    def dim(self) -> int:
        return self._inner.dim

    @property
    def picture_rules(self) -> PictureRules:
        return self._inner.picture_rules

    def fingerprint(self) -> str:
        return self._inner.fingerprint()

    def encode_texts(self, texts: Sequence[str], /) -> Vectors:
        return self._encode(list(texts))

    def encode_pixels(self, pixels: Pixels, /) -> Vectors:
        return self._encode(list(pixels))

    def close(self) -> None:
        """Let the worker finish what it has and end."""
        self._queue.put(None)
        self._worker.join()

    def _encode(self, inputs: Sequence[Input]) -> Vectors:
        futures: list[Future[Vector]] = [Future() for _ in inputs]
        for input, future in zip(inputs, futures, strict=True):
            self._queue.put((input, future))
        return np.stack([future.result() for future in futures])

    def _work(self) -> None:
        while True:
            batch: list[tuple[Input, Future[Vector]]] = []
            entry = self._queue.get()
            while entry is not None:
                batch.append(entry)
                if len(batch) == MAX_BATCH or self._queue.empty():
                    break
                entry = self._queue.get()
            if batch:
                self._on_batch(len(batch))
                self._answer(batch)
            if entry is None:
                return

    def _answer(self, batch: Sequence[tuple[Input, Future[Vector]]]) -> None:
        texts = [(text, future) for text, future in batch if isinstance(text, str)]
        squares = [(square, future) for square, future in batch if not isinstance(square, str)]
        if texts:
            _settle(
                lambda: self._inner.encode_texts([text for text, _ in texts]), [future for _, future in texts]
            )
        if squares:
            stacked = np.stack([square for square, _ in squares])
            _settle(lambda: self._inner.encode_pixels(stacked), [future for _, future in squares])


def _settle(encode: Callable[[], Vectors], futures: Sequence[Future[Vector]]) -> None:
    try:
        vectors = encode()
    except Exception as error:  # belongs to those who asked, not to the worker
        for future in futures:
            future.set_exception(error)
    else:
        for future, vector in zip(futures, vectors, strict=True):
            future.set_result(vector)
