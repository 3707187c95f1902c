"""Captions as tokens: chosen in turn, siblings, padded."""

from collections import Counter

import numpy as np
import pytest

from unicross.data.items import Item
from unicross.data.tokens import CaptionTokens
from unicross.model.tokenizer import train_tokenizer

TEXTS = (
    ("a red square", "something red and square", "red block"),
    ("a blue dot",),
    (),
    ("green grass under the sky", "grass"),
)


@pytest.fixture(scope="module")
def captions():
    items = [Item(str(i), None, texts) for i, texts in enumerate(TEXTS)]
    tokenizer = train_tokenizer([t for texts in TEXTS for t in texts], 200)
    return CaptionTokens(items, tokenizer, max_tokens=6)


def test_captions_are_flat_and_know_their_item(captions):
    assert len(captions) == 6
    assert captions.counts.tolist() == [3, 1, 0, 2]
    assert captions.first.tolist() == [0, 3, 4, 4]
    assert captions.item.tolist() == [0, 0, 0, 1, 3, 3]
    assert captions.texts[4].as_py() == "green grass under the sky"


@pytest.mark.parametrize("seed", range(5))
def test_each_caption_is_used_once_over_as_many_turns_as_there_are(captions, seed):
    items = np.array([0, 1, 3])
    turns = np.stack([captions.choose(items, turn, seed) for turn in range(6)])
    assert set(turns[:3, 0]) == set(turns[3:, 0]) == {0, 1, 2}
    assert set(turns[:, 1]) == {3}
    assert set(turns[:2, 2]) == set(turns[2:4, 2]) == {4, 5}


def test_items_do_not_all_begin_with_their_first_caption():
    items = [Item(str(i), None, ("a", "b", "c", "d", "e")) for i in range(200)]
    many = CaptionTokens(items, train_tokenizer(["a b c d e"], 50), 8)
    chosen = many.choose(np.arange(200), 0, 0) - many.first
    assert min(Counter(chosen.tolist()).values()) > 20
    assert not np.array_equal(chosen, many.choose(np.arange(200), 0, 1) - many.first)


def test_a_choice_does_not_depend_on_who_else_is_in_the_batch(captions):
    together = captions.choose(np.array([0, 1, 3]), 4, 0)
    assert captions.choose(np.array([3]), 4, 0)[0] == together[2]


def test_a_sibling_is_another_caption_of_the_item_where_there_is_one(captions):
    rng = np.random.default_rng(0)
    asked = np.array([0, 1, 2, 3, 4, 5])
    seen = np.concatenate([captions.siblings(asked, 1, rng) for _ in range(60)])
    for column, caption in enumerate(asked):
        others = set(np.flatnonzero(captions.item == captions.item[caption])) - {caption}
        assert set(seen[:, column]) == (others or {caption})  # all of them come up, itself never


def test_siblings_are_all_different_as_long_as_there_are_enough(captions):
    for seed in range(20):
        rows = captions.siblings(np.array([1, 4, 3]), 3, np.random.default_rng(seed))
        assert set(rows[:2, 0]) == {0, 2}
        assert rows[2, 0] == rows[0, 0]  # there are no more: they repeat
        assert rows[:, 1].tolist() == [5, 5, 5]
        assert rows[:, 2].tolist() == [3, 3, 3]


def test_tokens_are_padded_on_the_right_to_the_longest(captions):
    tokens = captions.tokens(np.array([5, 4, 0]))
    lengths = captions.lengths()[[5, 4, 0]]
    assert lengths.tolist() == [3, 6, 5]  # [CLS] grass [SEP]; five words cut to max_tokens; a red square
    assert tokens.ids.shape == tokens.mask.shape == (3, 6)
    assert tokens.mask.sum(1).tolist() == lengths.tolist()
    assert tokens.mask[0].tolist() == [1, 1, 1, 0, 0, 0]
    pad = captions._tokenizer.pad_token_id
    assert (tokens.ids[tokens.mask == 0] == pad).all()
    assert captions._tokenizer.decode(tokens.ids[2], skip_special_tokens=True) == "a red square"


def test_stored_tokens_equal_the_tokenizers_own(captions):
    for caption, text in enumerate(captions.texts.to_pylist()):
        wanted = captions._tokenizer(text, truncation=True, max_length=6)["input_ids"]
        assert captions.tokens(np.array([caption])).ids[0].tolist() == wanted
