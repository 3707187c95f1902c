"""Indexing, killed again and again."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest

import kill_worker
from fake_model import FakeModel, paint
from unicross.store import StoreInfo, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.copy import rebuild
from unicross.store.index import index

KILLS = 30


@pytest.mark.slow
def test_kills_while_indexing_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills at random moments: the ids are those of an unbroken run, none twice, and vectors are right."""
    rng = random.Random(0)
    photos = tmp_path / "photos"
    for number in range(150):
        paint(photos / f"{number % 7}" / f"{number:03}.png", tuple(rng.randrange(256) for _ in range(3)))
    address = str(tmp_path / "store")
    here = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(here))  # for the process that is forked
    processes = multiprocessing.get_context("forkserver")  # forks of a process that has imported everything
    processes.set_forkserver_preload(["kill_worker"])
    kills, sizes = 0, []
    while True:
        started = processes.Event()
        process = processes.Process(target=kill_worker.run, args=(photos, address, started))
        process.start()
        assert started.wait(120)
        process.join(rng.random() * 0.25 if kills < KILLS else 120)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        kills += process.exitcode == -signal.SIGKILL
        sizes.append(open_store(address).count())
        if kills == KILLS and process.exitcode == 0:
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
    kept = broken.thumbnails.states()
    assert {id: state[:2] for id, state in kept.items()} == {row.id: (row.size, row.mtime) for row in rows}
    again = open_store(str(tmp_path / "again"), info)
    rebuild(EmbeddingArchive(Path(address) / "embeddings"), again)
    assert sorted(row.id for row in again.scan()) == sorted(expected)
