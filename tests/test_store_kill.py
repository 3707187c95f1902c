"""Indexing, killed again and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fake_model import FakeModel, paint
from unicross.store import StoreInfo, open_store
from unicross.store.copy import rebuild
from unicross.store.index import index
from unicross.store.keep import Keep

INDEX_SLOWLY = """
import sys, time
from pathlib import Path
from fake_model import FakeModel
from unicross.store import StoreInfo, open_store
from unicross.store.index import index
from unicross.store.keep import Keep

class Slow(FakeModel):
    def encode_pixels(self, pixels):
        time.sleep(0.01)
        return super().encode_pixels(pixels)

import unicross.store.index
unicross.store.index.CHUNK = 4
model = Slow()
store = open_store(sys.argv[2], StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16))
print("start", flush=True)
index(model, Path(sys.argv[1]), store, keep=Keep(Path(sys.argv[2]) / "embeddings"))
print("done", flush=True)
"""


@pytest.mark.slow
def test_kills_while_indexing_lose_and_double_nothing(tmp_path: Path) -> None:
    """Thirty kills at random moments: the ids are those of an unbroken run, none twice, vectors are right."""
    rng = random.Random(0)
    photos = tmp_path / "photos"
    for number in range(150):
        paint(photos / f"{number % 7}" / f"{number:03}.png", tuple(rng.randrange(256) for _ in range(3)))
    address = str(tmp_path / "store")
    kills, sizes = 0, []
    while True:
        run = subprocess.Popen(
            [sys.executable, "-c", INDEX_SLOWLY, str(photos), address],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdout is not None
        assert run.stdout.readline() == "start\n"
        if kills < 30:
            time.sleep(rng.random() * 0.25)
            run.send_signal(signal.SIGKILL)
            kills += run.wait() == -signal.SIGKILL
            run.stdout.close()
            sizes.append(open_store(address).count())
        else:
            assert run.stdout.read() == "done\n"
            run.stdout.close()
            assert run.wait() == 0
            break
    assert sizes == sorted(sizes)
    broken = open_store(address)
    model = FakeModel()
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=16)
    unbroken = open_store(str(tmp_path / "unbroken"), info)
    index(model, photos, unbroken)
    rows = list(broken.scan(vectors=True))
    expected = {row.id: row for row in unbroken.scan(vectors=True)}
    assert sorted(row.id for row in rows) == sorted(expected)
    for row in rows:
        np.testing.assert_array_equal(row.vector, expected[row.id].vector)
    again = open_store(str(tmp_path / "again"), info)
    rebuild(Keep(Path(address) / "embeddings"), again)
    assert sorted(row.id for row in again.scan()) == sorted(expected)
