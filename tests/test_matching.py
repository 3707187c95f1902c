"""Who chooses whom among pictures and texts that came alone."""

import numpy as np
import pytest

from unicross.clustering import normalise
from unicross.matching import mutual_matches


@pytest.mark.parametrize(("images", "texts"), [(40, 40), (30, 50), (50, 30)])
def test_images_find_their_texts_in_any_order_and_number(images, texts):
    rng = np.random.default_rng(0)
    things = normalise(rng.normal(size=(50, 16)))
    order = rng.permutation(texts)
    of_images, of_texts = mutual_matches(
        normalise(things[:images] + 0.02 * rng.normal(size=(images, 16))), things[:texts][order]
    )
    right = {(i, int(np.flatnonzero(order == i)[0])) for i in range(min(images, texts))}
    assert right <= set(zip(of_images.tolist(), of_texts.tolist(), strict=True))
    assert len(set(of_texts.tolist())) == len(of_texts)
    assert of_images.tolist() == sorted(of_images.tolist())


def test_a_text_that_is_near_to_everything_is_not_everybodys_best():
    images = normalise(np.eye(4) + 1.0)
    hub = normalise(np.ones((1, 4)))
    texts = np.concatenate([hub, normalise(5 * np.eye(4) + 1.0)])
    assert (images @ texts.T).argmax(axis=1).tolist() == [0, 0, 0, 0]
    of_images, of_texts = mutual_matches(images, texts)
    assert dict(zip(of_images.tolist(), of_texts.tolist(), strict=True)).items() >= {(1, 2), (2, 3), (3, 4)}
