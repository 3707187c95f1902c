"""Uni-modal losses against what earlier steps made of an item's other images and captions."""

import numpy as np
import pytest
import torch

import tiny
from training_parts import (
    CPU,
    PLAIN,
    assert_resumes,
    batch_of,
    cost,
    dataset_of,
    gradients,
    prepared,
    random_features,
)
from unicross.data.items import Item, Items
from unicross.errors import RecipeError
from unicross.losses import against_remembered
from unicross.training import batch as batch_module
from unicross.training.batch_losses import Contrast, batch_losses
from unicross.training.checks import for_items
from unicross.training.rounds import FeatureBank, Round
from unicross.training.step import backward

SHARED = {"uni_heads": "shared"}
TEXTS = {
    "name": "s",
    "epochs": 1,
    "losses": {"image_text": 1.0, "text_text": 0.5},
    "views": {"remembered": True},
}
BOTH = TEXTS | {"losses": {"image_text": 1.0, "image_image": 0.5, "text_text": 0.5}}


def unit(*numbers):
    return torch.nn.functional.normalize(torch.tensor([numbers]), dim=-1)[0]


def test_a_view_stands_against_what_was_remembered_of_all_items():
    views = torch.stack([unit(1.0, 0.2), unit(0.3, 1.0), unit(-1.0, 0.5)])
    remembered = torch.stack([unit(0.9, 0.1), unit(0.1, 0.8), torch.zeros(2), unit(-0.5, -0.5)])
    found = against_remembered(views, torch.tensor([4, 5, 6]), remembered, torch.tensor([4, 5, 6, 7]), 0.1)
    known = [remembered[0], remembered[1], remembered[3]]  # nothing is known of item 6: no key, no anchor
    losses = [
        cost(views[own], [known[own]], [(known[other], 1.0) for other in range(3) if other != own], 10.0)
        for own in range(2)
    ]
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_what_says_the_same_is_no_negative():
    views, remembered = unit(1.0, 0.2)[None], torch.stack([unit(0.9, 0.1), unit(1.0, 0.0), unit(0.0, 1.0)])
    ignored = torch.tensor([[False, True, False]])
    found = against_remembered(views, torch.tensor([0]), remembered, torch.arange(3), 1.0, ignored)
    wanted = cost(views[0], [remembered[0]], [(remembered[2], 1.0)], 1.0)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_step_sees_one_view_and_compares_it_with_the_bank(photos):
    recipe, _, data = prepared(photos, BOTH, model=SHARED)
    stage, items = recipe.stages[0], [2, 5, 9]
    assert (len(stage.image_views), stage.text_views) == (1, 1)
    batch = batch_of(data, items, stage)
    assert batch.remembered.tolist() == data.pairs.tolist()
    bank = FeatureBank(len(data.items), 8, CPU)
    generator = torch.Generator().manual_seed(1)
    for table in (bank.image, bank.text):
        table[:] = torch.nn.functional.normalize(torch.randn(table.shape, generator=generator), dim=-1)
    images, texts = random_features(3, views=1)
    found = batch_losses(images, texts, batch, stage, Contrast(torch.tensor(5.0)), bank)
    losses = stage.losses
    for name, features, table, temperature in (
        ("image_image", images, bank.image, losses.image_temperature),
        ("text_text", texts, bank.text, losses.text_temperature),
    ):
        keys = table[data.pairs]
        wanted = against_remembered(
            features.uni[:, 0], torch.tensor(items), keys, batch.remembered, temperature
        )
        assert float(found[name]) == pytest.approx(float(wanted), rel=1e-5)


def test_before_anything_is_remembered_the_step_is_that_of_the_image_text_loss(photos):
    recipe, model, data = prepared(photos, BOTH, model=SHARED)
    stage = recipe.stages[0]
    plain = stage.without(images=True, texts=True)
    batch = batch_of(data, range(6), stage)
    both = {}
    for name, of in (("remembered", stage), ("plain", plain)):
        model.zero_grad()
        outcome = backward(model, batch, of, PLAIN, bank=FeatureBank(len(data.items), model.dim, CPU))
        both[name] = gradients(model)
        assert outcome.losses.get("text_text", torch.zeros(())) == 0
    for name, gradient in both["plain"].items():
        torch.testing.assert_close(both["remembered"][name], gradient)


def test_texts_that_another_item_says_too_are_told(photos):
    recipe, model, whole = prepared(photos, TEXTS, model=SHARED)
    picture = whole.items[0].images
    said = [("a red box", "a box"), ("a green box", "a box"), ("a hoop", "a ring")]
    data = dataset_of([Item(str(n), picture, texts) for n, texts in enumerate(said)], model, recipe)
    shown = {}
    for turn in range(2):
        batch = batch_of(data, [0, 1, 2], recipe.stages[0], turn=turn)
        for row in range(3):
            equal = batch.equal_to_remembered
            told = [] if equal is None else equal[row].nonzero().flatten().tolist()
            shown[caption(data, batch, row)] = [*shown.get(caption(data, batch, row), []), told]
    assert shown["a red box"] == shown["a green box"] == shown["a hoop"] == shown["a ring"] == [[]]
    assert shown["a box"] == [[1], [0]] or shown["a box"] == [[0], [1]]


def caption(data, batch, row):
    tokens = batch.text_views[0]
    ids = tokens.ids[row][tokens.mask[row] > 0].tolist()
    every = data.captions.tokens(np.arange(len(data.captions)))
    number = next(c for c in range(len(every.ids)) if every.ids[c][every.mask[c] > 0].tolist() == ids)
    return data.items.texts[number].as_py()


def test_a_batch_is_compared_with_so_many_items_at_most_and_with_its_own(photos, monkeypatch):
    monkeypatch.setattr(batch_module, "REMEMBERED", 4)
    recipe, _, data = prepared(photos, TEXTS, model=SHARED)
    items = [0, 11, 20]
    drawn = [batch_of(data, items, recipe.stages[0], seed=seed).remembered.tolist() for seed in range(5)]
    assert all(4 <= len(set(keys)) == len(keys) <= 7 and set(items) <= set(keys) for keys in drawn)
    assert len(set(map(tuple, drawn))) > 1


def test_pairs_that_are_left_out_are_no_negatives(photos):
    recipe, _, data = prepared(photos, TEXTS, model=SHARED)
    round_ = Round(suspects=np.array([3, 4]))
    remembered = batch_of(data, [0, 1, 2], recipe.stages[0], round_).remembered
    assert remembered.tolist() == np.setdiff1d(data.pairs, [3, 4]).tolist()


def test_remembered_views_are_of_the_shared_space_and_of_the_image_text_loss(photos):
    with pytest.raises(RecipeError, match=r"shared space: set model\.uni_heads=shared"):
        tiny.recipe(photos, TEXTS)
    with pytest.raises(RecipeError, match="remembered views are those of the image-text"):
        tiny.recipe(photos, TEXTS | {"losses": {"text_text": 1.0}}, model=SHARED)


def test_where_no_item_has_several_there_is_nothing_to_remember(photos):
    recipe, _, data = prepared(photos, BOTH, model=SHARED)
    changed, notes = for_items(recipe, data.items)  # one image an item, several captions
    assert (changed.stages[0].losses.image_image, changed.stages[0].losses.text_text) == (0.0, 0.5)
    assert [note.split(":")[0] for note in notes] == ["no item has several images"]
    single = Items.of([Item("a", data.items[0].images, ("a text",))])
    changed, notes = for_items(recipe, single)
    assert changed.stages[0].losses.text_text == 0.0
    assert notes[1].startswith("no item has several captions: there is no text-text loss")
    of_kinds = tiny.recipe(photos, TEXTS | {"views": {"remembered": True, "text": "kind"}}, model=SHARED)
    changed, notes = for_items(of_kinds, data.items)  # several captions, without a language
    assert changed.stages[0].losses.text_text == 0.0
    assert notes[0].startswith("no item has captions in several languages or of several fields")


def test_a_run_that_remembers_is_resumed_as_if_it_had_gone_on(photos, tmp_path):
    recipe = tiny.recipe(photos, TEXTS | {"epochs": 3}, model=SHARED)
    assert_resumes(recipe, tmp_path)
    losses = [step["loss/text_text"] for step in tiny.events(tmp_path / "whole", "step")]
    assert losses[0] == 0
    assert losses[-1] > 0
