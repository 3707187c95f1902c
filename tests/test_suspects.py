"""Pairs that a model doubts: planted ones are found, none where there are none, and a weak model says so."""

import numpy as np
import pytest

from unicross.errors import DataError
from unicross.suspects import suspects

RNG = np.random.default_rng


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pairs(items: int, captions: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of pictures and of so many captions of each, which lie near it."""
    rng = RNG(0)
    images = unit(rng.normal(size=(items, 24)))
    owner = np.repeat(np.arange(items), captions)
    texts = unit(images[owner] + noise * unit(rng.normal(size=(len(owner), 24))))
    return images, texts, owner


@pytest.mark.parametrize("captions", [1, 3])
def test_swapped_captions_are_listed_first(captions: int) -> None:
    images, texts, owner = pairs(300, captions)
    swapped = np.arange(0, 40 * captions, 2 * captions)
    texts[np.concatenate([swapped, swapped + captions])] = texts[
        np.concatenate([swapped + captions, swapped])
    ]
    planted = {*swapped.tolist(), *(swapped + captions).tolist()}
    found = suspects(images, texts, owner)
    assert set(found.order[: len(planted)].tolist()) == planted
    assert len(planted) // 2 <= found.count <= 2 * len(planted)
    assert set(found.listed.tolist()) <= set(found.order.tolist())
    assert 0.5 < found.wrong / len(planted) < 2  # the number of wrong ones is estimated


def test_items_with_all_captions_of_another_are_found_and_counted() -> None:
    """Such captions agree with each other, which must not speak for them."""
    images, texts, owner = pairs(300, 5)
    whole = texts.reshape(300, 5, -1)
    whole[:60] = np.roll(whole[:60], 1, axis=0)
    found = suspects(images, texts, owner)
    assert (owner[found.order[:300]] < 60).mean() > 0.95
    assert found.wrong == pytest.approx(300, rel=0.2)


def test_nothing_is_listed_where_all_is_right() -> None:
    found = suspects(*pairs(300, 2))
    assert (found.count, found.wrong) == (0, 0)
    assert found.fit.min() > 0.9


def test_items_with_one_caption_and_with_several_mix() -> None:
    images, texts, owner = pairs(200, 2)
    keep = np.ones(len(owner), bool)
    keep[1:200:2] = False  # the first hundred items have one caption
    texts, owner = texts[keep], owner[keep]
    texts[[0, 150]] = texts[[150, 0]]
    assert set(suspects(images, texts, owner).order[:2].tolist()) == {0, 150}


def test_the_same_answer_for_the_same_seed() -> None:
    images, texts, owner = pairs(100, 2)
    assert np.array_equal(suspects(images, texts, owner).fit, suspects(images, texts, owner).fit)


def test_a_model_that_knows_nothing_doubts_nothing() -> None:
    images, _, owner = pairs(200, 1)
    texts = unit(RNG(1).normal(size=images.shape))
    with pytest.raises(DataError, match="tells these pairs from random ones too badly"):
        suspects(images, texts, owner)
