"""Queries of many threads in shared forwards."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from fake_model import FakeModel
from serving import Slow
from unicross.serve.batching import BatchedEncoder


def test_concurrent_queries_share_a_forward() -> None:
    model = Slow()
    encoder = BatchedEncoder(model)
    results: dict[str, Any] = {}

    def ask(word: str) -> None:
        results[word] = encoder.encode_texts([word])[0]

    threads = [threading.Thread(target=ask, args=("red",))]
    threads[0].start()
    assert model.entered.wait(10)
    threads += [threading.Thread(target=ask, args=(word,)) for word in ("blue", "green", "white", "black")]
    for thread in threads[1:]:
        thread.start()
    while encoder._queue.qsize() < 4:
        pass
    model.go_on.set()
    for thread in threads:
        thread.join()
    assert model.batches == [1, 4]
    for word, vector in results.items():
        np.testing.assert_array_equal(vector, FakeModel().encode_texts([word])[0])
    encoder.close()


def test_a_failing_forward_reaches_who_asked_and_nobody_else() -> None:
    model = Slow()
    model.go_on.set()
    encoder = BatchedEncoder(model)
    with pytest.raises(RuntimeError, match="bang"):
        encoder.encode_texts(["bang"])
    assert encoder.encode_texts(["red"]).shape == (1, 16)
    encoder.close()
