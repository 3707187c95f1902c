"""Items with several images: what a step sees of them and learns from them, and what is said where none
has."""

import numpy as np
import pytest
import torch

import tiny
from training_parts import assert_resumes, batch_of, cost, dataset_of, prepared, random_features
from unicross.data.items import CaptionKind, Item, Items
from unicross.errors import RecipeError
from unicross.run import RunFolder
from unicross.training.batch_losses import Contrast, batch_losses
from unicross.training.checks import for_items
from unicross.training.embedding import embed_images, embed_item_images
from unicross.training.rounds import FeatureBank

STAGE = {
    "name": "s",
    "epochs": 1,
    "losses": {"image_text": 1.0, "image_image": 0.5},
    "views": {"images": 2, "captions": 2, "image_uni": None},
}


LOSSES = ("image_text", "image_image", "text_text")
VIEWS = {"images": 2, "captions": 2, "image_uni": None, "text": "kind"}


def catalogue(photos, **sections):
    """Items of one, two or three of the pictures each, with captions in one or two languages."""
    recipe, model, data = prepared(photos, STAGE, **sections)
    images = [item.images[0] for item in data.items]
    texts = [caption for item in data.items for caption in item.captions]
    en, de = CaptionKind("title", "en"), CaptionKind("title", "de")
    items, start = [], 0
    for number in range(8):
        count = 1 + number % 3
        kinds = (en, en, de) if number % 2 else (en, en)
        captions = tuple(texts[3 * number : 3 * number + len(kinds)])
        items.append(Item(str(number), tuple(images[start : start + count]), captions, kinds))
        start += count
    return recipe.stages[0], model, dataset_of(items, model, recipe)


def test_views_show_different_images_of_an_item_where_it_has_several(photos):
    stage, _, data = catalogue(photos)
    batch = batch_of(data, range(8), stage)
    first, second = batch.pixels
    for row, item in enumerate(batch.image_ids.tolist()):
        own = data.pixels[np.flatnonzero(data.items.item_of_image == item)]
        shown = {view[row].numpy().tobytes() for view in (first, second)}
        assert shown <= {image.tobytes() for image in own}
        assert len(shown) == min(len(own), 2)


def test_each_image_of_an_item_has_its_turn(photos):
    stage, _, data = catalogue(photos)
    seen = {batch_of(data, [2], stage, turn=turn).pixels[0].numpy().tobytes() for turn in range(3)}
    assert len(seen) == 3


def test_the_second_caption_is_of_another_kind_where_there_is_one(photos):
    stage, _, data = catalogue(photos)
    stage = stage.model_copy(update={"views": stage.views.model_copy(update={"text": "kind"})})
    for seed in range(5):
        batch = batch_of(data, [4, 5], stage, seed=seed)
        first, second = ([caption_of(data, view, row) for row in (0, 1)] for view in batch.text_views)
        languages = data.items.languages
        assert {languages[first[0]], languages[second[0]]} == {"en"}
        assert "de" in {languages[first[1]], languages[second[1]]}


def caption_of(data, tokens, row):
    """The caption that a row of tokens is."""
    ids = tokens.ids[row][tokens.mask[row] > 0].tolist()
    every = data.captions.tokens(np.arange(len(data.captions)))
    return next(c for c in range(len(every.ids)) if every.ids[c][every.mask[c] > 0].tolist() == ids)


def test_the_loss_has_all_images_and_captions_of_an_item_as_positives(photos):
    stage, _, data = catalogue(photos)
    batch = batch_of(data, [1, 3, 5], stage)
    images, texts = random_features(3)
    found = batch_losses(images, texts, batch, stage, Contrast(torch.tensor(5.0)))["image_text"]
    vectors = [(item, images.cross[item, v], texts.cross[item, v]) for item in range(3) for v in range(2)]
    losses = []
    for side in (1, 2):
        for anchor in vectors:
            other = 3 - side
            positives = [v[other] for v in vectors if v[0] == anchor[0]]
            negatives = [(v[other], 1.0) for v in vectors if v[0] != anchor[0]]
            losses.append(cost(anchor[side], positives, negatives, 5.0))
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_items_embedding_is_the_mean_of_its_images(photos):
    _, model, data = catalogue(photos)
    vectors, count = embed_item_images(model, data, np.array([2, 0]))
    assert count == 4
    own = embed_images(model, data, np.flatnonzero(data.items.item_of_image == 2))
    mean = own.sum(0) / np.linalg.norm(own.sum(0))
    np.testing.assert_allclose(vectors[0], mean, atol=1e-6)


def test_the_bank_mixes_images_with_those_before_where_items_have_several():
    bank = FeatureBank(1, 2, torch.device("cpu"), several_images=True)
    for vector in ([1.0, 0.0], [0.0, 1.0]):
        bank.put(torch.tensor([0]), torch.tensor([[vector]]), torch.tensor([[vector]]))
    np.testing.assert_allclose(bank.image[0].float().numpy(), [0.5**0.5, 0.5**0.5], atol=1e-3)


def test_a_recipe_for_items_of_several_does_without_where_there_are_none(photos):
    recipe, _, data = prepared(photos, STAGE | {"losses": dict.fromkeys(LOSSES, 1.0), "views": VIEWS})
    changed, notes = for_items(recipe, data.items)  # one image an item, captions without a language
    stage = changed.stages[0]
    assert (stage.losses.image_image, stage.views.images, len(stage.image_views)) == (0.0, 1, 1)
    assert (stage.losses.text_text, stage.views.captions, stage.text_views) == (0.0, 1, 1)
    assert [note.split(":")[0] for note in notes] == [
        "no item has several images",
        "no item has captions in several languages or of several fields",
    ]


def test_a_recipe_for_items_of_several_stays_where_some_have_them(photos):
    _, _, data = catalogue(photos)
    stage = {"losses": dict.fromkeys(LOSSES, 1.0), "views": VIEWS}
    recipe = tiny.recipe(photos, STAGE | stage)
    assert for_items(recipe, data.items) == (recipe, [])


def test_a_recipe_that_makes_its_second_views_itself_needs_no_such_items(photos):
    recipe, _, data = prepared(photos, STAGE | {"views": {"captions": 2}})
    assert for_items(recipe, data.items) == (recipe, [])


def test_a_run_on_items_of_one_image_each_can_be_resumed(photos, tmp_path):
    """Its checkpoints name the recipe that was asked for, not what the data left of it."""
    views = {"images": 2, "image_uni": None}
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 2, "views": views})
    assert_resumes(recipe, tmp_path)
    notes = RunFolder(tmp_path / "killed").events("note")
    assert sum("no item has several images" in note["text"] for note in notes) == 1


def test_a_stage_of_image_image_alone_needs_siblings(photos):
    stage = STAGE | {"losses": {"image_image": 1.0}}
    recipe = tiny.recipe(photos, stage)
    with pytest.raises(
        RecipeError, match=r"'s' compares images, or texts, of an item.*no item has several.*data\.item"
    ):
        for_items(recipe, Items.of([Item("a", (), ("a text",))]))
