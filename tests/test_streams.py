"""Random streams: equal for equal names, and no two uses share one."""

from itertools import combinations

import numpy as np
import pytest

import tiny
from unicross.streams import draw_seed, stream
from unicross.training import entry, loop, plan, train


def drawn(rng):
    return tuple(rng.integers(2**62, size=4).tolist())


def test_equal_names_give_equal_draws():
    assert drawn(stream(3, "plan", 1, 2)) == drawn(stream(3, "plan", 1, 2))
    assert drawn(stream(np.int64(3), "plan", np.int64(1), 2)) == drawn(stream(3, "plan", 1, 2))
    assert draw_seed(stream(3, "plan")) == draw_seed(stream(3, "plan"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "plan"), (1, "plan")),
        ((0, "plan"), (0, "batch")),
        ((0, "plan"), (0, "plan", 0)),
        ((0, "plan", 0, 1), (0, "plan", 1, 0)),
        ((0, "plan", 1, 23), (0, "plan", 12, 3)),
        ((0, "batch", 1, 2, 2), (0, "plan", 1, 2)),  # what batch 2 and the plan of an epoch once shared
        ((1, "plan", 0), (0, "plan", 1)),
    ],
)
def test_another_seed_name_or_number_gives_other_draws(one, other):
    assert set(drawn(stream(*one))).isdisjoint(drawn(stream(*other)))


def test_no_two_uses_in_a_run_share_a_stream(photos, tmp_path, monkeypatch):
    """All kinds of stages, two epochs with a round each, heads that are fitted."""
    named = []

    def watched(*name):
        named.append(name)
        return stream(*name)

    monkeypatch.setattr(entry, "stream", watched)
    monkeypatch.setattr(loop, "stream", watched)
    monkeypatch.setattr(plan, "stream", watched)
    stages = (tiny.UNI, tiny.ALIGN | {"fit_heads": True}, tiny.SHARPEN | {"epochs": 2})
    train(tiny.recipe(photos, *stages), tmp_path / "run")
    assert {name[1] for name in named} >= {"captions", "heads", "round", "plan", "batch"}
    assert len(set(named)) == len(named)
    assert sum(name[1] == "batch" for name in named) == 4 * 3
    draws = [set(drawn(stream(*name))) for name in named]
    assert all(one.isdisjoint(other) for one, other in combinations(draws, 2))
