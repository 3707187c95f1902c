"""Captions as tokens: chosen in turn, siblings, padded."""

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
def tokenizer():
    return train_tokenizer([t for texts in TEXTS for t in texts], 200)


@pytest.fixture(scope="module")
def captions(tokenizer):
    items = [Item(str(i), (), texts) for i, texts in enumerate(TEXTS)]
    return CaptionTokens(items, tokenizer, max_tokens=6)


def test_captions_are_flat_and_know_their_item(captions):
    assert len(captions) == 6
    assert captions.counts.tolist() == [3, 1, 0, 2]
    assert captions.first.tolist() == [0, 3, 4, 4]
    assert captions.item.tolist() == [0, 0, 0, 1, 3, 3]
    assert captions.texts[4].as_py() == "green grass under the sky"


def test_tokens_are_padded_on_the_right_to_the_longest(captions, tokenizer):
    tokens = captions.tokens(np.array([5, 4, 0]))
    lengths = captions.lengths()[[5, 4, 0]]
    assert lengths.tolist() == [3, 6, 5]  # [CLS] grass [SEP]; five words cut to max_tokens; a red square
    assert tokens.ids.shape == tokens.mask.shape == (3, 6)
    assert tokens.mask.sum(1).tolist() == lengths.tolist()
    assert tokens.mask[0].tolist() == [1, 1, 1, 0, 0, 0]
    pad = tokenizer.pad_token_id
    assert (tokens.ids[tokens.mask == 0] == pad).all()
    assert tokenizer.decode(tokens.ids[2], skip_special_tokens=True) == "a red square"


def test_stored_tokens_equal_the_tokenizers_own(captions, tokenizer):
    for caption, text in enumerate(captions.texts.to_pylist()):
        wanted = tokenizer(text, truncation=True, max_length=6)["input_ids"]
        assert captions.tokens(np.array([caption])).ids[0].tolist() == wanted


def test_captions_that_differ_in_case_and_spaces_only_have_one_number(tokenizer):
    texts = (
        "A red  square",
        "a red square ",
        "\ta RED\nsquare",
        "ared square",
        "a red square.",
        "ÉTÉ",
        "été",
    )
    items = [Item("0", (), texts[:2]), Item("1", (), texts[2:])]
    number = CaptionTokens(items, tokenizer, 6).number
    assert [number.tolist().index(one) for one in number] == [0, 0, 0, 3, 4, 5, 5]
