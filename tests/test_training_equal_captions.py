"""Equal captions of different items are no negatives of each other, in any loss that compares texts."""

import dataclasses
from statistics import mean

import pytest
import torch

from training_parts import ALL, PLAIN, batch_of, cost, dataset_of, gradients, prepared, random_features
from unicross.data.items import Item
from unicross.training import distributed
from unicross.training.batch_losses import Contrast, batch_losses
from unicross.training.step import backward

CAPTIONS = (
    ("A red  square", "something on the left"),
    (" a red square",),
    ("a blue block", "a RED\tsquare"),  # of which the image-text loss sees the first, or both
    ("nothing is green here", "green: nothing is here"),  # the same words are not the same text
    ("a blue block",),
)
"""Of four pairs and a text only. Each begins with its first caption, and shows the last one next to it."""
PAIRS, ALONE, SCALE = [2, 0, 1, 3], 4, 10.0
NOISE = {"image_image": 0.1, "text_text": 0.05}
"""Temperatures."""


def plain(text):
    return " ".join(text.lower().split())


def shown(item, view):
    """What a view of an item says."""
    return plain(CAPTIONS[item][min(view, len(CAPTIONS[item]) - 1)])


def says(item, text):
    return text in map(plain, CAPTIONS[item])


def equal_data(photos, captions, **sections):
    """Pictures of the set with the captions above; the last item, images and texts only, has no picture."""
    stage = ALL | {"batches": {"kind": "random"}}  # every negative counts once
    recipe, model, data = prepared(photos, stage, views={"captions": captions}, **sections)
    pictures = [item.images[0] for item in data.items]
    items = [Item(str(n), (pictures[n],) if n != ALONE else (), texts) for n, texts in enumerate(CAPTIONS)]
    items.append(Item("picture", (pictures[9],)))
    data = dataset_of(items, model, recipe)
    data.caption_turns.beginnings[:] = 0
    return recipe.stages[0], model, data


def expected(images, texts, captions):
    """The losses of a step over its pairs and then the text only, anchor by anchor."""
    pairs = range(len(PAIRS))
    of_pairs = []
    for i in pairs:
        others = [
            (text, 1.0)
            for j in pairs
            if j != i
            for view, text in enumerate(texts.cross[j, :captions])
            if not says(PAIRS[i], shown(PAIRS[j], view))
        ]
        of_image = cost(images.cross[i, 0], texts.cross[i, :captions], others, SCALE)
        of_texts = []
        for view, text in enumerate(texts.cross[i, :captions]):
            others = [
                (images.cross[j, 0], 1.0)
                for j in pairs
                if j != i and not says(PAIRS[j], shown(PAIRS[i], view))
            ]
            of_texts.append(cost(text, images.cross[i, :1], others, SCALE))
        of_pairs.append((of_image + mean(of_texts)) / 2)
    of_images = [
        cost(
            images.uni[i, v],
            images.uni[i, 1 - v, None],
            [(view, 1.0) for j in range(len(images.uni)) if j != i for view in images.uni[j]],
            1 / NOISE["image_image"],
        )
        for i in range(len(images.uni))
        for v in (0, 1)
    ]
    items = [*PAIRS, ALONE][: len(texts.uni)]
    of_views = []
    for i, item in enumerate(items):
        for v in (0, 1):
            others = [
                (texts.uni[j, w], 1.0)
                for j, other in enumerate(items)
                if j != i
                for w in (0, 1)
                if shown(item, v) != shown(other, w)
            ]
            of_views.append(cost(texts.uni[i, v], texts.uni[i, 1 - v, None], others, 1 / NOISE["text_text"]))
    return {"image_text": mean(of_pairs), "image_image": mean(of_images), "text_text": mean(of_views)}


def assert_losses(losses, wanted):
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("captions", [1, 2])
def test_losses_equal_a_slow_loop_that_leaves_equal_captions_out(photos, captions):
    """Other case and spaces are equal too; so is a caption of an image that this batch does not show."""
    stage, _, data = equal_data(photos, captions)
    batch = batch_of(data, [*PAIRS, ALONE], stage)
    images, _ = random_features(len(PAIRS))
    _, texts = random_features(len(PAIRS) + 1)
    losses = batch_losses(images, texts, batch, stage, Contrast(torch.tensor(SCALE)))
    assert_losses(losses, expected(images, texts, captions))


def test_two_items_of_the_same_caption_alone_have_no_negative_at_all(photos):
    """Their losses are zero: each positive stands against nothing."""
    stage, _, data = equal_data(photos, 1)
    batch = batch_of(data, [0, 1], stage)
    images, texts = random_features(2)
    losses = batch_losses(images, texts, batch, stage, Contrast(torch.tensor(SCALE)))
    assert losses["image_text"].item() == pytest.approx(0)
    assert losses["text_text"].item() > 1e-4  # the second caption of the first is another one
    assert losses["image_image"].item() > 1e-4  # of pictures, captions say nothing


def test_batches_without_equal_captions_carry_no_mask(photos):
    stage, _, data = equal_data(photos, 2)
    batch = batch_of(data, [0, 3], stage)
    assert (batch.equal_to_image, batch.equal_texts) == (None, None)


@pytest.mark.parametrize("captions", [1, 2])
def test_micro_batches_leave_them_out_too(photos, captions):
    stage, model, data = equal_data(photos, captions, model={"dropout": 0, "temperature": 1 / SCALE})
    batch = batch_of(data, [*PAIRS, ALONE], stage)
    found = []
    for micro in (None, 2):
        model.zero_grad()
        done = backward(model, batch, stage, PLAIN, micro)
        assert_losses(done.losses, expected(done.images, done.texts, captions))
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_each_of_several_processes_knows_the_equal_captions_of_the_whole_batch(photos, monkeypatch):
    stage, _, data = equal_data(photos, 2)
    items = [*PAIRS, ALONE]
    whole = batch_of(data, items, stage)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        part = batch_of(data, items, stage)
        assert len(part.text_views[0].lengths) == 3
        assert whole.equal_to_image.shape == (4, 8)
        assert whole.equal_texts.shape == (10, 10)
        assert torch.equal(part.equal_to_image, whole.equal_to_image)
        assert torch.equal(part.equal_texts, whole.equal_texts)


def test_neither_equal_captions_nor_presumed_false_negatives_take_the_place_of_the_other(photos):
    stage, _, data = equal_data(photos, 1)
    equal = batch_of(data, PAIRS, stage)
    presumed = torch.zeros(4, 4, dtype=torch.bool)
    presumed[0, 3] = True  # which say nothing alike
    both = dataclasses.replace(equal, masked=presumed)
    only_presumed = dataclasses.replace(both, equal_to_image=None, equal_texts=None)
    features = random_features(4)
    with_both, with_equal, with_presumed = (
        batch_losses(*features, batch, stage, Contrast(torch.tensor(SCALE)))
        for batch in (both, equal, only_presumed)
    )
    for name in ("image_text", "text_text"):
        assert with_both[name] < min(with_equal[name], with_presumed[name])
