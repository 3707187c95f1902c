"""Which of its captions or images an item shows, when."""

from collections import Counter

import numpy as np
import pytest

from unicross.data.turns import EvenTurns, Turns

COUNTS = np.array([3, 1, 0, 2])
ITEM = np.repeat(np.arange(4), COUNTS)


def drawn(seed=0, counts=COUNTS):
    return Turns.draw(counts, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(3))
def test_each_part_is_shown_once_over_as_many_turns_as_there_are(seed):
    shown = np.stack([drawn(seed).choose(np.array([0, 1, 3]), turn) for turn in range(6)])
    assert set(shown[:3, 0]) == set(shown[3:, 0]) == {0, 1, 2}
    assert set(shown[:, 1]) == {3}
    assert set(shown[:2, 2]) == set(shown[2:4, 2]) == {4, 5}


def test_items_do_not_all_begin_with_their_first_part():
    one, again, other = (drawn(seed, np.full(200, 5)) for seed in (0, 0, 1))
    chosen = one.choose(np.arange(200), 0) - one.first
    assert min(Counter(chosen.tolist()).values()) > 20
    assert np.array_equal(one.beginnings, again.beginnings)
    assert not np.array_equal(one.beginnings, other.beginnings)


def test_a_choice_does_not_depend_on_who_else_is_in_the_batch():
    turns = drawn()
    assert turns.choose(np.array([3]), 4)[0] == turns.choose(np.array([0, 1, 3]), 4)[2]


def test_a_sibling_is_another_part_of_the_item_where_there_is_one():
    rng, asked = np.random.default_rng(0), np.arange(6)
    seen = np.concatenate([drawn().siblings(asked, ITEM[asked], 1, rng) for _ in range(60)])
    for part in asked:
        others = set(np.flatnonzero(ITEM[part] == ITEM)) - {part}
        assert set(seen[:, part]) == (others or {part})  # all of them come up, itself never


def test_siblings_are_all_different_as_long_as_there_are_enough():
    asked = np.array([1, 4, 3])
    for seed in range(20):
        rows = drawn().siblings(asked, ITEM[asked], 3, np.random.default_rng(seed))
        assert set(rows[:2, 0]) == {0, 2}
        assert rows[2, 0] == rows[0, 0]  # there are no more: they repeat
        assert rows[:, 1].tolist() == [5, 5, 5]
        assert rows[:, 2].tolist() == [3, 3, 3]


def test_siblings_with_another_label_come_first():
    counts, label = np.array([4]), np.array([0, 0, 1, 0])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        siblings = drawn(counts=counts).siblings(np.array([0, 2]), np.array([0, 0]), 2, rng, label)
        assert siblings[0, 0] == 2
        assert siblings[1, 0] in (1, 3)
        assert set(siblings[:, 1]) < {0, 1, 3}


def test_even_turns_show_each_label_as_often_as_another():
    label = np.array(
        [0, 0, 0, 1, 0, 1, 0]
    )  # an item with three and one, one with a single part, one with 1 + 1
    turns = EvenTurns.draw(np.array([4, 1, 0, 2]), label, np.random.default_rng(3))
    shown = np.stack([turns.choose(np.array([0, 1, 3]), turn) for turn in range(12)])
    assert Counter(label[shown[:, 0]].tolist()) == {0: 6, 1: 6}
    assert Counter(shown[:, 0].tolist()) == {0: 2, 1: 2, 2: 2, 3: 6}
    assert set(shown[:, 1]) == {4}
    assert Counter(shown[:, 2].tolist()) == {5: 6, 6: 6}
