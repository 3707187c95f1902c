"""Pseudo-pairs: who chooses whom among images and texts that came alone."""

import json

import numpy as np
import pytest

import tiny
from training_parts import Killed, batch_of, prepared
from unicross.clustering import normalise
from unicross.data.load import load_items
from unicross.errors import RecipeError
from unicross.training import plan, pseudo_pairs, train
from unicross.training.plan import epoch_plan
from unicross.training.pseudo_pairs import mutual_matches
from unicross.training.rounds import Round

STAGE = tiny.ALIGN | {"batches": {"pseudo_pairs": 2}}


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


def chosen(photos, monkeypatch, matches):
    """A data set of 24 pairs and 5 of each alone, and its captioned_bys where `matches` are found."""
    recipe, model, data = prepared(photos, STAGE, alone=5)
    found = (np.array([m[0] for m in matches]), np.array([m[1] for m in matches]))
    monkeypatch.setattr(pseudo_pairs, "mutual_matches", lambda *_: found)
    captioned_by, figures, spent = pseudo_pairs.pseudo_pairs(model, data, np.random.default_rng(0))
    return recipe, data, captioned_by, figures, spent


def test_captioned_bys_are_the_pairs_and_what_was_matched(photos, monkeypatch):
    _, data, captioned_by, figures, spent = chosen(photos, monkeypatch, [(0, 1), (3, 0)])
    images, texts = data.images_only, data.texts_only
    assert captioned_by[:24].tolist() == list(range(24))
    assert captioned_by[images].tolist() == [texts[1], -1, -1, texts[0], -1]
    assert (captioned_by[texts] == -1).all()
    assert figures == {"matched": 2, "unpaired": 5}
    assert spent == {"image": 5, "text": 5}


def test_of_many_a_sample_is_matched(photos, monkeypatch):
    _, model, data = prepared(photos, STAGE, alone=5)
    monkeypatch.setattr(pseudo_pairs, "MOST", 3)
    rounds = [pseudo_pairs.pseudo_pairs(model, data, np.random.default_rng(seed)) for seed in range(8)]
    assert all(figures["unpaired"] == 3 and spent == {"image": 3, "text": 3} for _, figures, spent in rounds)
    matched = [tuple(np.flatnonzero(captioned_by[24:] >= 0)) for captioned_by, _, _ in rounds]
    assert len(set(matched)) > 1


def test_pseudo_pairs_have_the_picture_of_one_and_the_captions_of_the_other(photos, monkeypatch):
    recipe, data, captioned_by, _, _ = chosen(photos, monkeypatch, [(0, 1), (3, 0)])
    first, second = data.images_only[[0, 3]]
    batch = batch_of(data, np.array([second, 5, first]), recipe.stages[0], Round(captioned_by))
    assert batch.pairs == 3
    assert batch.image_ids.tolist() == batch.text_ids.tolist() == [second, 5, first]
    tokens = [data.captions.tokens(data.captions.first[[text]]) for text in data.texts_only[[0, 1]]]
    seen = [ids[ids > 0].tolist() for ids in batch.text_views[0].ids]
    assert [seen[0], seen[2]] == [one.ids[0][one.ids[0] > 0].tolist() for one in tokens]
    assert batch_of(data, np.array([second, 5]), recipe.stages[0]).pairs == 1


def test_each_batch_gets_pseudo_pairs_and_nothing_twice(photos, monkeypatch):
    recipe, data, captioned_by, _, _ = chosen(photos, monkeypatch, [(0, 1), (3, 0), (4, 4)])
    batches = epoch_plan(data, recipe.stages[0], 0, 8, Round(captioned_by), np.random.default_rng(0))
    matched = set(data.images_only[[0, 3, 4]])
    assert [len(matched & set(batch)) for batch in batches] == [1, 1, 1]
    seen = np.concatenate(batches)
    assert set(data.images_only[[1, 2]]).isdisjoint(seen)
    assert set(data.texts_only).isdisjoint(seen)


def test_pseudo_pairs_need_the_image_text_loss(photos):
    with pytest.raises(RecipeError, match="pseudo_pairs serves the image-text loss"):
        tiny.recipe(photos, tiny.UNI | {"batches": {"pseudo_pairs": 2}})


def test_without_anything_alone_there_are_none(photos, tmp_path):
    train(tiny.recipe(photos, STAGE), tmp_path / "run")
    assert not tiny.events(tmp_path / "run", "round")
    assert {event["pairs"] for event in tiny.events(tmp_path / "run", "step")} == {8}


def half_alone(root):
    """A table of the set's pictures: the first 20 with captions, the others apart from theirs."""
    items = load_items(str(root), "train").items
    records = []
    for number, item in enumerate(items):
        image, captions = {"image": str(item.images[0].path)}, {"caption": list(item.captions)}
        records += [image | captions] if number < 20 else [image, captions]
    records += [
        {"image": str(item.images[0].path), "caption": list(item.captions), "split": "val"}
        for item in load_items(str(root), "val").items
    ]
    table = root / "half.jsonl"
    table.write_text("".join(json.dumps({"split": "train"} | record) + "\n" for record in records))
    return table


def test_a_run_makes_pseudo_pairs_anew_each_round_and_resumes_with_them(tmp_path, monkeypatch):
    root = tiny.write_set(tmp_path / "set", train=40)
    table = half_alone(root)
    stage = tiny.ALIGN | {"name": "spread", "epochs": 4, "batches": {"pseudo_pairs": 4, "recluster_every": 2}}
    recipe = tiny.recipe(table, tiny.ALIGN, stage, train={"save_minutes": 1e-9})
    train(recipe, tmp_path / "whole")
    rounds = tiny.events(tmp_path / "whole", "round")
    assert [event["epoch"] for event in rounds] == [1, 3]
    assert all(0 < event["matched"] <= event["unpaired"] for event in rounds)
    pairs = [(event["stage"], event["pairs"]) for event in tiny.events(tmp_path / "whole", "step")]
    assert max(pairs) > ("spread", 8)
    assert max(number for stage, number in pairs if stage == "align") == 8

    def listener(event):
        if event["kind"] == "step" and event["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, tmp_path / "cut", listener=listener)
    rematched = []
    real = plan.pseudo_pairs
    monkeypatch.setattr(plan, "pseudo_pairs", lambda *args: rematched.append(1) or real(*args))
    train(recipe, tmp_path / "cut", resume=True)
    assert len(rematched) == 1  # the round that was under way is kept
    losses = [[event["loss"] for event in tiny.events(tmp_path / run, "step")] for run in ("whole", "cut")]
    assert losses[0] == losses[1]
