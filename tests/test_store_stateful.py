"""Any sequence of changes, kills, copies and rebuilds leaves a store equal to a dictionary, on every engine.

A kill here ends an operation between two of its writes to the disk; `test_store_kill.py` kills processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from unicross.store import Row, Store, StoreInfo, open_store
from unicross.store.archive import EmbeddingArchive, write_rows
from unicross.store.copy import copy, rebuild
from unicross.store.gaps import fill_gaps

D = 8
INFO = StoreInfo(fingerprint="f", checkpoint="m", dim=D)
EXAMPLES = int(os.environ.get("UNICROSS_STATEFUL", "8"))
"""Sequences of an engine; UNICROSS_STATEFUL=200 for the long run."""
SEQUENCES = settings(max_examples=EXAMPLES, stateful_step_count=12, deadline=None, derandomize=True)
NUMBER = count()

ids = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True)
versions = st.integers(0, 1000)


def row(id: str, version: int) -> Row:
    """A row of which everything depends on its version."""
    vector = np.random.default_rng([ord(id), version]).standard_normal(D).astype(np.float32)
    extra: dict[str, Any] = {"version": version} if version % 2 else {}
    vector /= np.linalg.norm(vector)
    return Row(id, "image", f"/p/{id}.jpg", version, version / 4, f"ü {version}", "album", extra, vector)


class Killed(BaseException):
    """Ends an operation as a kill does: nothing catches it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The process dies before its write to the archive number `step`; 0 is the first part, 1 its list."""
    import unicross.store.archive as module

    writes = count()

    def guarded(write: Any) -> Any:
        def call(*args: Any) -> None:
            if next(writes) == step:
                raise Killed
            write(*args)

        return call

    with (
        patch.object(module, "write_bytes", guarded(module.write_bytes)),
        patch.object(module, "write_text", guarded(module.write_text)),
    ):
        yield


class StoreMachine(RuleBasedStateMachine):
    """A store with its archive, and the dictionary that both should equal."""

    engine: str
    home: Path
    milvus_url: str | None

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[str, Row] = {}
        self.store, self.archive = self.new()

    def new(self) -> tuple[Store, EmbeddingArchive]:
        number = next(NUMBER)
        places = {
            "lance": str(self.home / f"store{number}"),
            "milvus_lite": f"{self.home}/lite.db/t{number}",
            "milvus_server": f"{self.milvus_url}/stateful{number}",
        }
        self.address = places[self.engine]
        archive = EmbeddingArchive(self.home / f"archive{number}")
        archive.describe(INFO)
        return open_store(self.address, INFO), archive

    def put(self, rows: list[Row]) -> None:
        write_rows(self.store, self.archive, rows)

    @rule(ids=ids, version=versions)
    def upsert(self, ids: list[str], version: int) -> None:
        rows = [row(id, version) for id in ids]
        self.put(rows)
        self.expected.update({one.id: one for one in rows})

    @rule(ids=ids)
    def delete(self, ids: list[str]) -> None:
        self.archive.forget(ids)
        self.store.delete(ids)
        for id in ids:
            self.expected.pop(id, None)

    @rule()
    def compact(self) -> None:
        self.store.optimize()

    @rule(ids=ids, version=versions, step=st.integers(0, 2))
    def kill_while_upserting(self, ids: list[str], version: int, step: int) -> None:
        in_store = patch.object(type(self.store), "upsert", side_effect=Killed)
        with pytest.raises(Killed), in_store if step == 2 else killed_at(step):
            self.put([row(id, version) for id in ids])
        self.start_again()

    @rule(ids=ids, step=st.integers(0, 2))
    def kill_while_deleting(self, ids: list[str], step: int) -> None:
        with suppress(Killed), killed_at(step):
            self.archive.forget(ids)  # and before the store is told
        self.start_again()

    @rule()
    def start_again(self) -> None:
        self.store.close()
        self.store = open_store(self.address)
        self.archive = EmbeddingArchive(self.archive.folder)
        fill_gaps(self.store, self.archive, own=True)

    @rule()
    def copy_and_go_on_there(self) -> None:
        old = self.store
        self.store, self.archive = self.new()
        copy(old, self.store, self.archive)
        old.close()

    @rule()
    def rebuild_and_go_on_there(self) -> None:
        old, archive = self.store, self.archive
        if not self.expected:
            return
        self.store, self.archive = self.new()
        rebuild(archive, self.store, self.archive)
        old.close()

    @invariant()
    def the_store_equals_the_dictionary(self) -> None:
        self.same({one.id: one for one in self.store.scan(vectors=True)})
        assert self.store.count() == len(self.expected)
        asked = list("fedcba")
        assert [one.id for one in self.store.get(asked)] == [id for id in asked if id in self.expected]

    @invariant()
    def the_archive_equals_the_dictionary(self) -> None:
        self.same({one.id: one for rows in self.archive.replay() for one in rows})

    def same(self, rows: dict[str, Row]) -> None:
        assert rows.keys() == self.expected.keys()
        for id, one in rows.items():
            assert replace(one, vector=None) == replace(self.expected[id], vector=None)
            np.testing.assert_array_equal(one.vector, self.expected[id].vector)

    def teardown(self) -> None:
        self.store.close()


@pytest.mark.parametrize(
    "engine", ["lance", "milvus_lite", pytest.param("milvus_server", marks=pytest.mark.slow)]
)
def test_any_sequence_equals_a_dictionary(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine == "milvus_lite":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    if engine == "milvus_server" and "UNICROSS_STATEFUL" not in os.environ:
        pytest.skip("takes many minutes: set UNICROSS_STATEFUL=8")
    url = request.getfixturevalue("milvus_url") if engine == "milvus_server" else None
    members = {"engine": engine, "home": tmp_path, "milvus_url": url}
    machine = type("Machine", (StoreMachine,), members)
    run_state_machine_as_test(machine, settings=SEQUENCES)
