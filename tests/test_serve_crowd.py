"""When refused clients are told to come back: each at a turn of its own, as fast as answers are given."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicross.serve.crowd import LONGEST_S, SHORTEST_S, SPREAD, Crowd, retry_after


@given(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_near_its_turn_and_within_bounds(until_turn_s: float, draw: float) -> None:
    told = retry_after(until_turn_s, draw)
    assert SHORTEST_S <= told <= LONGEST_S
    assert told == SHORTEST_S or told >= min(until_turn_s - 1, LONGEST_S)
    assert told <= max(SHORTEST_S, (1 + SPREAD) * until_turn_s + 1)


def settled(answer_s: float, draw: float = 0.0) -> Crowd:
    """At time 0, with 64 who waited for each of many answers of that time."""
    crowd = Crowd(64, clock=lambda: 0.0, draw=lambda: draw)
    for _ in range(300):
        crowd.answered(64 * answer_s, 64)
    return crowd


@pytest.mark.parametrize(("answer_s", "first", "last"), [(0.025, 1, 12), (0.001, 1, 1), (2.0, 30, 30)])
def test_turns_follow_the_queue_and_the_time_of_an_answer(answer_s: float, first: int, last: int) -> None:
    crowd = settled(answer_s)
    told = [crowd.turn(64) for _ in range(436)]
    assert (told[0], told[-1]) == (first, last)
    assert told == sorted(told)


def test_a_lone_client_says_nothing_of_a_crowd() -> None:
    crowd = settled(0.01)
    for _ in range(300):
        crowd.answered(0.5, 1)
    assert [crowd.turn(64) for _ in range(200)][-1] == 2


def test_of_a_crowd_that_obeys_no_second_has_more_than_can_be_answered() -> None:
    crowd = Crowd(64, clock=lambda: 0.0, draw=random.Random(0).random)
    for _ in range(300):
        crowd.answered(64 / 40, 64)  # 40 answers a second
    told = [crowd.turn(64) for _ in range(436)]
    assert max(told.count(second) for second in set(told)) <= 50
    assert len(set(told)) > 10


def test_a_turn_that_passed_is_forgotten() -> None:
    now = 0.0
    crowd = Crowd(64, clock=lambda: now, draw=lambda: 0.0)
    for _ in range(300):
        crowd.answered(6.0, 60)  # a tenth of a second each
    for _ in range(100):
        crowd.turn(20)
    assert crowd.turn(0) == pytest.approx(12, abs=1)
    now = 60.0
    assert crowd.turn(0) == 1
