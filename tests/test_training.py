"""One run at a time: what a batch holds, what a step does, what stops a run and what it leaves behind."""

import dataclasses
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from unicross.batches import soft_targets
from unicross.clustering import normalise
from unicross.config import Batches, Optim
from unicross.data.captions import Captions
from unicross.data.items import ImageFile, Item, Items
from unicross.device import autocast
from unicross.errors import CheckpointError, DataError, RecipeError, TrainingError
from unicross.losses import cross_modal, uni_modal
from unicross.model import TwoTower
from unicross.training import checkpoint, loop, state, step, train
from unicross.training.cost import step_forwards
from unicross.training.dataset import cached_side, make_dataset, read_splits
from unicross.training.optim import freeze, make_optimizer, parameters_of, schedule_shape, set_rates
from unicross.training.prepare import ahead, make_batch
from unicross.training.rounds import Bank, epoch_plan, frozen_text, new_round, steps_per_epoch
from unicross.training.step import Features, backward, batch_losses

CPU = torch.device("cpu")
PLAIN = partial(autocast, CPU, "fp32")
ALL = tiny.SHARPEN | {"losses": {"image_text": 1.0, "image_image": 0.5, "text_text": 0.25}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return tiny.write_set(tmp_path_factory.mktemp("photos"))


def prepared(photos, *stages, alone=0, **sections):
    """Recipe, model and data set; with `alone`, so many images and texts alone are added."""
    recipe = tiny.recipe(photos, *stages, **sections)
    torch.manual_seed(recipe.seed)
    items = list(read_splits(recipe)[0])
    for number in range(alone):
        items.append(Item(f"image {number}", items[number].image))
        items.append(Item(f"text {number}", None, (f"a text about nothing {number}",)))
    captions = [caption for item in items for caption in item.captions]
    model = TwoTower.create(recipe.model, max_tokens=24, captions=captions)
    side = cached_side(recipe.data, recipe.model)
    data, _ = make_dataset(
        Items.of(items), model, recipe.data, side=side, where=None, progress=lambda *_: None
    )
    return recipe, model, data


def whole_round(data, model, stage):
    return new_round(model, data, stage, Bank(len(data.items), model.dim, CPU), seed=0)[0]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# -- batches ----------------------------------------------------------------------------------------


def test_a_batch_is_decided_by_its_seed(photos):
    recipe, _, data = prepared(photos, ALL)
    one, again, other = (
        make_batch(data, np.arange(6), recipe.stages[0], None, 2, seed) for seed in [(0, 1), (0, 1), (0, 2)]
    )
    assert torch.equal(one.pixels, again.pixels)
    assert torch.equal(one.image_views[1].boxes, again.image_views[1].boxes)
    assert torch.equal(one.text_views[1].ids, again.text_views[1].ids)
    assert one.seed == again.seed != other.seed
    assert not torch.equal(one.image_views[1].boxes, other.image_views[1].boxes)


@pytest.mark.parametrize(
    ("losses", "images", "texts"),
    [
        ({"image_text": 1.0}, 1, 1),
        ({"image_text": 1.0, "image_image": 1.0}, 2, 1),
        ({"image_text": 1.0, "text_text": 1.0}, 1, 2),
        ({"image_image": 1.0}, 2, 0),
        ({"text_text": 1.0}, 0, 2),
    ],
)
def test_views_are_made_for_the_losses_that_want_them(photos, losses, images, texts):
    recipe, _, data = prepared(photos, {"name": "x", "epochs": 1, "losses": losses})
    batch = make_batch(data, np.arange(6), recipe.stages[0], None, 0, (0,))
    assert (len(batch.image_views), len(batch.text_views)) == (images, texts)
    assert len(batch.pixels) == (6 if images else 0)


def test_the_image_text_loss_sees_the_first_of_the_two_uni_modal_views(photos):
    views = {"image": {"blur": 0.0, "jitter": 0.0}, "image_uni": {"blur": 1.0, "jitter": 1.0}}
    recipe, _, data = prepared(photos, tiny.UNI, ALL, views=views)
    uni, joint = (make_batch(data, np.arange(6), stage, None, 0, (0,)) for stage in recipe.stages)
    assert [len(view.blurred) for view in uni.image_views] == [6, 6]
    assert [len(view.blurred) for view in joint.image_views] == [0, 6]


def test_text_views_are_the_same_caption_a_sibling_or_a_perturbed_one(photos):
    for kind in ("dropout", "sibling", "perturb"):
        recipe, _, data = prepared(photos, tiny.UNI, views={"text": kind, "perturb": 0.9})
        first, second = make_batch(data, np.arange(6), recipe.stages[0], None, 0, (0,)).text_views
        tokenizer = data.captions._tokenizer
        before, after = (
            tokenizer.batch_decode(view.ids, skip_special_tokens=True) for view in (first, second)
        )
        captions = [
            set(tokenizer.batch_decode(tokenizer(item.captions)["input_ids"], skip_special_tokens=True))
            for item in data.items[:6]
        ]
        assert all(text in own for text, own in zip(before, captions, strict=True))
        if kind == "dropout":
            assert before == after
        else:
            assert all(a != b for a, b in zip(before, after, strict=True))
            assert all((a in own) == (kind == "sibling") for a, own in zip(after, captions, strict=True))


def test_captions_take_turns_over_the_epochs(photos):
    recipe, _, data = prepared(photos, tiny.ALIGN)
    seen = set()
    for turn in range(3):
        view = make_batch(data, np.arange(1), recipe.stages[0], None, turn, (0,)).text_views[0]
        seen.add(tuple(view.ids[0].tolist()))
    assert len(seen) == 3


def test_items_alone_join_only_the_losses_that_can_use_them(photos):
    recipe, _, data = prepared(photos, ALL, tiny.ALIGN, alone=2)
    items = np.array([24, 0, 25, 1, 26, 27])  # image, pair, text, pair, image, text
    both, cross = (make_batch(data, items, stage, None, 0, (0,)) for stage in recipe.stages)
    assert both.pairs == cross.pairs == 2
    assert both.image_ids.tolist() == [0, 1, 24, 26]
    assert both.text_ids.tolist() == [0, 1, 25, 27]
    assert cross.image_ids.tolist() == cross.text_ids.tolist() == [0, 1]


def test_presumed_false_negatives_are_those_of_the_round(photos):
    recipe, model, data = prepared(photos, ALL)
    current = whole_round(data, model, recipe.stages[0])
    items = np.array([3, 1, 2])
    batch = make_batch(data, items, recipe.stages[0], current, 0, (0,))
    assert batch.masked is not None
    assert batch.masked.tolist() == current.masked(items, 0.95).tolist()
    off = recipe.stages[0].model_copy(update={"batches": Batches(kind="clustered", guard=None)})
    assert make_batch(data, items, off, current, 0, (0,)).masked is None


def test_the_guard_also_serves_stages_without_an_image_text_loss(photos):
    """Their soft targets would serve nothing."""
    losses = tiny.UNI["losses"] | {"soft": 0.3}
    stage = tiny.UNI | {"losses": losses, "batches": {"judge": "frozen_text", "guard": 0.2}}
    recipe, model, data = prepared(photos, stage)
    judge, _ = frozen_text(model, data)
    batch = make_batch(data, np.arange(6), recipe.stages[0], judge, 0, (0,))
    assert batch.masked.tolist() == judge.masked(np.arange(6), 0.2).tolist()
    assert batch.masked.any()
    assert batch.match is None


def test_the_untrained_text_tower_can_judge_what_is_alike(photos):
    """By the captions alone, pooled, before any head; its own twin is alike whatever the pictures show."""
    _, model, data = prepared(photos, tiny.ALIGN, alone=2)
    judge, spent = frozen_text(model, data)
    assert spent == {"text": 24 * 3}
    assert judge.text.shape == (28, model.text.backbone.config.hidden_size)
    tokens = data.captions.tokens(np.flatnonzero(data.captions.item == 5))
    pooled = model.pool_tokens(tokens.ids, tokens.mask).mean(axis=0)
    np.testing.assert_allclose(judge.text[5], pooled / np.linalg.norm(pooled), atol=5e-3)
    alike = judge.alike(np.array([5, 6, 5]))
    np.testing.assert_allclose(alike, alike.T)
    assert alike[0, 2] == pytest.approx(1, abs=1e-3)
    assert judge.masked(np.array([5, 6, 5]), 0.999)[0].tolist() == [False, False, True]


def test_soft_targets_and_masks_come_from_the_judge(photos):
    losses = {"image_text": 1.0, "soft": 0.3, "soft_temperature": 0.2}
    stage = {"name": "x", "epochs": 1, "losses": losses, "batches": {"judge": "frozen_text", "guard": 0.5}}
    recipe, model, data = prepared(photos, stage)
    judge, _ = frozen_text(model, data)
    items = np.array([3, 1, 2])
    batch = make_batch(data, items, recipe.stages[0], judge, 0, (0,))
    assert batch.masked.tolist() == judge.masked(items, 0.5).tolist()
    assert batch.match.tolist() == soft_targets(judge.alike(items), 0.3, 0.2).tolist()
    assert make_batch(data, items, recipe.stages[0], None, 0, (0,)).match is None


def test_a_stage_is_judged_by_whom_it_names(photos, tmp_path):
    """The frozen judge costs one forward a caption, is asked with random batches too, and changes the run."""

    def last_loss(name, **batches):
        stage = tiny.ALIGN | {"batches": batches, "losses": {"image_text": 1.0}}
        heard = []
        summary = train(tiny.recipe(photos, stage), tmp_path / name, listener=heard.append)
        return [e["loss"] for e in heard if e["kind"] == "step"][-1], summary["forwards"]

    plain, cost = last_loss("plain")
    judged, judged_cost = last_loss("judged", judge="frozen_text", guard=0.2)
    assert judged_cost["text"] == cost["text"] + 24 * 3
    assert judged < plain  # fewer negatives


def test_batches_made_ahead_come_in_order_and_tell_their_error():
    assert list(ahead(lambda n: n * n, range(7), depth=3)) == [n * n for n in range(7)]
    assert list(ahead(str, [])) == []

    def fails(n):
        if n == 2:
            raise DataError("gone")
        return n

    made = ahead(fails, range(5))
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(DataError, match="gone"):
        next(made)


@pytest.mark.parametrize("stage", [tiny.UNI, tiny.ALIGN, ALL])
@pytest.mark.parametrize("alone", [0, 9])
def test_a_plan_is_as_long_as_the_schedule_expects(photos, stage, alone):
    recipe, model, data = prepared(photos, stage, alone=alone)
    stage = recipe.stages[0]
    current = whole_round(data, model, stage) if stage.batches.kind == "clustered" else None
    plan = epoch_plan(data, stage, 0, 7, current, np.random.default_rng(0))
    assert len(plan) == steps_per_epoch(data, stage, 7)


@pytest.mark.parametrize(("fraction", "shares"), [(0.5, [0.5, 0.5, 0.5]), ([1.0, 0.0], [1.0, 0.5, 0.0])])
def test_the_share_of_random_batches_may_ramp_over_the_stage(photos, fraction, shares):
    batches = {"kind": "clustered", "cluster_size": 6, "random_fraction": fraction}
    recipe, model, data = prepared(photos, ALL | {"epochs": 3, "batches": batches})
    stage = recipe.stages[0]
    current = whole_round(data, model, stage)
    for epoch, share in enumerate(shares):
        plan = epoch_plan(data, stage, epoch, 6, current, np.random.default_rng(0))
        assert sum(len(set(current.cluster[batch])) == 1 for batch in plan) == round((1 - share) * 4)


def test_chained_clusters_are_numbered_along_the_chain(photos):
    stage = ALL | {"batches": {"kind": "clustered", "cluster_size": 3, "chained": True}}
    recipe, model, data = prepared(photos, stage)
    current = whole_round(data, model, recipe.stages[0])
    joint = np.concatenate([current.image, current.text], axis=1).astype(np.float32)
    centroids = normalise(np.stack([joint[current.cluster == c].mean(axis=0) for c in range(8)]))
    cosines = centroids @ centroids.T
    for c in range(7):
        assert cosines[c, c + 1] >= cosines[c, c + 1 :].max() - 1e-3  # float16 rows


def test_items_alone_are_added_to_batches_of_pairs_where_asked(photos):
    stage = ALL | {"batches": {"unpaired": 2}}
    recipe, _, data = prepared(photos, stage, alone=5)
    plan = epoch_plan(data, recipe.stages[0], 0, 8, None, np.random.default_rng(0))
    images, texts = set(data.images_alone.tolist()), set(data.texts_alone.tolist())
    found = [(len(batch), len(images & set(batch)), len(texts & set(batch))) for batch in plan]
    assert found == [(12, 2, 2), (12, 2, 2), (10, 1, 1)]


# -- losses of a step -------------------------------------------------------------------------------


def random_features(items, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = partial(torch.randn, items, 2, dim, generator=generator)
    return Features(*(torch.nn.functional.normalize(make(), dim=-1) for _ in range(4)))


@pytest.mark.parametrize(("pictures", "captions"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("soft", [0.0, 0.4])
def test_losses_of_a_step_are_the_losses_of_its_features(photos, pictures, captions, soft):
    """Three pairs, then one image and one text alone; the mask and soft targets speak of the pairs."""
    views = {"pictures": pictures, "captions": captions}
    recipe, _, data = prepared(photos, ALL, alone=1, views=views)
    batch = make_batch(data, np.array([2, 0, 5, 24, 25]), recipe.stages[0], None, 0, (0,))
    masked = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.bool)
    batch = dataclasses.replace(batch, masked=masked)
    match = None
    if soft:
        match = torch.tensor([[0.8, 0.2, 0.0], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]])
        batch = dataclasses.replace(batch, match=match)
        match = match.repeat_interleave(pictures, 0).repeat_interleave(captions, 1)
    features = random_features(4)
    parts = batch_losses(features, batch, recipe.stages[0], torch.tensor(10.0))

    image, text = features.image[:3, :pictures].reshape(-1, 8), features.text[:3, :captions].reshape(-1, 8)
    image_ids, text_ids = (torch.arange(3).repeat_interleave(count) for count in (pictures, captions))
    seen = masked.repeat_interleave(pictures, 0).repeat_interleave(captions, 1)
    wanted = cross_modal(image, text, image_ids, text_ids, 10.0, seen, match)
    torch.testing.assert_close(parts["image_text"], wanted)

    symmetric = torch.zeros(8, 8, dtype=torch.bool)
    symmetric[:2, 2:4] = symmetric[2:4, :2] = True
    ids = torch.arange(4).repeat_interleave(2)
    flat = features.image_uni.reshape(8, 8)
    torch.testing.assert_close(parts["image_image"], uni_modal(flat, ids, 0.1, symmetric))
    flat = features.text_uni.reshape(8, 8)
    torch.testing.assert_close(parts["text_text"], uni_modal(flat, ids, 0.05, symmetric))


# -- gradient caching -------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [1, 3, 5, 7, 100])
def test_gradients_in_micro_batches_are_those_of_the_whole_batch(photos, micro):
    """All three losses, a mask, both views in the image-text loss, items alone, texts of many lengths."""
    recipe, model, data = prepared(
        photos, ALL, alone=2, model={"dropout": 0}, views={"pictures": 2, "captions": 2}
    )
    stage = recipe.stages[0]
    items = np.array([0, 24, 1, 2, 25, 3, 4, 26, 5])
    batch = make_batch(data, items, stage, whole_round(data, model, stage), 0, (0,))
    assert batch.masked is not None
    assert batch.masked.any()
    model.train()
    whole_parts, whole_features = backward(model, batch, stage, PLAIN)
    whole = gradients(model)
    model.zero_grad()
    parts, features = backward(model, batch, stage, PLAIN, micro)
    cached = gradients(model)
    assert whole.keys() == cached.keys()
    assert {"log_scale", "image.uni.0.weight", "text.cross.weight"} <= whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-5, atol=1e-5, msg=name)
    for name, value in whole_parts.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features.image, whole_features.image, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("micro", [2, 4])
def test_gradients_in_micro_batches_with_dropout_equal_one_graph_with_the_same_dropout(photos, micro):
    recipe, model, data = prepared(photos, ALL, model={"dropout": 0.3})
    stage = recipe.stages[0]
    batch = make_batch(data, np.arange(6), stage, None, 0, (0,))
    model.train()
    rows = [slice(start, start + micro) for start in range(0, 6, micro)]
    made = []
    for number, (encode, part) in enumerate(
        [(step._image_features, r) for r in rows] + [(step._text_features, r) for r in rows]
    ):
        torch.manual_seed(batch.seed + number)
        made.append(encode(model, batch, part, stage.losses))
    image, image_uni = (torch.cat(column) for column in zip(*made[: len(rows)], strict=True))
    text, text_uni = (torch.cat(column) for column in zip(*made[len(rows) :], strict=True))
    parts = batch_losses(Features(image, text, image_uni, text_uni), batch, stage, model.scale)
    sum(getattr(stage.losses, name) * value for name, value in parts.items()).backward()
    whole = gradients(model)
    model.zero_grad()
    backward(model, batch, stage, PLAIN, micro)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-5, msg=name)
    model.zero_grad()
    torch.manual_seed(1234)  # what was drawn before does not matter
    backward(model, batch, stage, PLAIN, micro)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-5, msg=name)


def test_frozen_towers_pass_in_micro_batches_too(photos):
    recipe, model, data = prepared(photos, tiny.ALIGN | {"freeze": ["image", "text"]})
    batch = make_batch(data, np.arange(6), recipe.stages[0], None, 0, (0,))
    freeze(model, ["image", "text"])
    backward(model, batch, recipe.stages[0], PLAIN, 2)
    assert set(gradients(model)) == {"image.cross.weight", "text.cross.weight", "log_scale"}


def test_views_keep_their_precision_under_autocast(photos):
    """Coordinates of crops in bf16 would move pixels; only the towers run in bf16."""
    sharp = {"crop": [0.5, 0.5], "blur": 1.0, "jitter": 1.0, "grey": 0.5}
    recipe, model, data = prepared(photos, ALL, views={"image": sharp, "image_uni": sharp})
    batch = make_batch(data, np.arange(4), recipe.stages[0], None, 0, (0,))
    seen = []
    model.image.backbone.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs), with_kwargs=True
    )
    backward(model, batch, recipe.stages[0], PLAIN)
    backward(model, batch, recipe.stages[0], partial(autocast, CPU, "bf16"))
    torch.testing.assert_close(seen[1]["pixel_values"], seen[0]["pixel_values"])


# -- bank and rounds --------------------------------------------------------------------------------


def test_the_bank_keeps_unit_features_and_mixes_captions():
    bank = Bank(3, 2, CPU)
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    bank.put(torch.tensor([1]), torch.stack([east, north])[None], east[None, None])
    torch.testing.assert_close(bank.image[1].float(), torch.full((2,), 0.5**0.5), atol=1e-3, rtol=0)
    assert bank.text[1].tolist() == [1.0, 0.0]
    bank.put(torch.tensor([1]), east[None, None], north[None, None])
    assert bank.image[1].tolist() == [1.0, 0.0]  # an image's is replaced
    torch.testing.assert_close(bank.text[1].float(), torch.full((2,), 0.5**0.5), atol=1e-3, rtol=0)
    assert not bank.image[[0, 2]].any()


def test_a_round_embeds_what_the_bank_lacks_and_is_not_moved_by_later_steps(photos):
    recipe, model, data = prepared(photos, ALL)
    stage, bank = recipe.stages[0], Bank(24, 16, CPU)
    east = torch.eye(16)[:1]
    bank.put(torch.tensor([5]), east[None], east[None])
    current, figures, spent = new_round(model, data, stage, bank, seed=0)
    assert spent == {"image": 23, "text": 23 * 3}
    assert current.image[5].tolist() == current.text[5].tolist() == east[0].tolist()
    np.testing.assert_allclose(np.linalg.norm(current.image.astype(np.float32), axis=1), 1, atol=2e-3)
    assert figures == {"clusters": 6, "size_min": 4, "size_max": 4}
    assert sorted(np.bincount(current.cluster)) == [4] * 6
    before = current.image.copy(), current.text.copy()
    bank.put(torch.arange(24), east.expand(24, 1, 16), east.expand(24, 1, 16))
    assert np.array_equal(current.image, before[0])
    assert np.array_equal(current.text, before[1])


def test_a_fresh_round_embeds_everything(photos):
    batches = {"kind": "clustered", "cluster_size": 4, "embed": "fresh"}
    recipe, model, data = prepared(photos, ALL | {"batches": batches})
    bank = Bank(24, 16, CPU)
    bank.put(torch.arange(24), torch.ones(24, 1, 16), torch.ones(24, 1, 16))
    _, _, spent = new_round(model, data, recipe.stages[0], bank, seed=0)
    assert spent == {"image": 24, "text": 72}


# -- optimiser and schedule -------------------------------------------------------------------------


def test_every_parameter_has_one_group_and_its_rate():
    model = tiny.model()
    optimizer = make_optimizer(model)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    optim = Optim(image_lr=1.0, text_lr=10.0, head_lr=100.0, layer_decay=0.5, weight_decay=0.3)
    set_rates(optimizer, optim, 0.1)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    rates, decays = ({n: of[id(p)] for n, p in model.named_parameters()} for of in (rate, decay))

    def of(values, text):
        found = {round(value, 9) for name, value in values.items() if text in name}
        assert len(found) == 1, (text, found)
        return found.pop()

    assert of(rates, "image.backbone.layernorm") == pytest.approx(0.1)
    assert of(rates, "text.backbone.encoder.layer.1.") == pytest.approx(1.0)
    assert of(rates, "text.backbone.encoder.layer.0.") == pytest.approx(0.5)
    assert of(rates, "text.backbone.embeddings.") == pytest.approx(0.25)
    assert of(rates, "image.cross") == of(rates, "text.uni.") == of(rates, "log_scale") == pytest.approx(10.0)
    assert of(decays, "log_scale") == of(decays, "layernorm") == of(decays, "position_embeddings") == 0
    assert all(value == 0 for name, value in decays.items() if name.endswith("bias"))
    assert of(decays, "image.cross") == of(decays, "intermediate.dense.weight") == pytest.approx(0.3)


def shapes(stages, steps):
    return [
        [schedule_shape(stages, steps, stage, number) for number in range(count)]
        for stage, count in enumerate(steps)
    ]


def test_one_schedule_spans_stages_until_a_restart():
    stages = tiny.recipe(
        "photos",
        tiny.UNI | {"optim": {"warmup": 0.5}},
        tiny.ALIGN | {"optim": {"restart": True, "warmup": 0.0}},
        tiny.SHARPEN,
    ).stages
    first, second, third = shapes(stages, [8, 6, 4])
    assert first[:4] == [0.2, 0.4, 0.6, 0.8]
    assert first[4] == 1.0
    assert first[4:] == sorted(first[4:], reverse=True)
    assert first[-1] < 0.2
    assert second[0] == 1.0
    assert second + third == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 10)) for n in range(10)])


def test_a_schedule_of_warm_up_alone_is_defined():
    stages = tiny.recipe("photos", tiny.ALIGN | {"optim": {"warmup": 1.0}}).stages
    assert shapes(stages, [3]) == [[0.25, 0.5, 0.75]]


@pytest.mark.parametrize("part", ["image", "text", "image_head", "text_head", "temperature"])
def test_parts_are_disjoint_and_whole(part):
    model = tiny.model()
    freeze(model, [part])
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    wanted = {id(p) for p in parameters_of(model, part)}
    assert {id(model.get_parameter(name)) for name in still} == wanted
    prefix = {"temperature": ("log_scale",)}.get(part)
    if part.endswith("_head"):
        prefix = (f"{part[:-5]}.cross", f"{part[:-5]}.uni")
    assert all(name.startswith(prefix or (f"{part}.backbone",)) for name in still)
    freeze(model, [])
    assert all(p.requires_grad for p in model.parameters())


# -- runs -------------------------------------------------------------------------------------------


def start_weights(recipe):
    items, _, _ = read_splits(recipe)
    return state.make_model(recipe, items, CPU).state_dict()


def test_frozen_parts_keep_their_weights_to_the_bit(photos, tmp_path):
    stage = tiny.ALIGN | {"epochs": 2, "freeze": ["image", "text_head"], "losses": {"image_text": 1.0}}
    recipe = tiny.recipe(photos, stage)
    train(recipe, tmp_path / "run")
    before, after = start_weights(recipe), load_file(tmp_path / "run" / "last" / "model.safetensors")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert not any(name.startswith(("image.backbone", "text.cross", "text.uni")) for name in moved)
    assert {"image.cross.weight", "log_scale"} <= moved
    assert any(name.startswith("text.backbone") for name in moved)
    assert "image.uni.0.weight" not in moved  # no loss asks for it


def test_training_learns_and_tells_what_it_does(photos, tmp_path):
    heard = []
    stage = tiny.ALIGN | {"epochs": 12, "optim": {"head_lr": 5e-3, "image_lr": 3e-3, "text_lr": 3e-3}}
    recipe = tiny.recipe(photos, stage)
    summary = train(recipe, tmp_path / "run", listener=heard.append)
    run = tmp_path / "run"
    losses = [event["loss"] for event in tiny.events(run, "step")]
    assert len(losses) == 36
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
    assert [event["step"] for event in tiny.events(run, "eval")] == list(range(3, 37, 3))
    assert {event["kind"] for event in heard} == {"decoding", "start", "step", "epoch", "eval"}
    best = max(tiny.events(run, "eval"), key=lambda event: event["rsum"])
    assert summary["metrics"]["rsum"] == best["rsum"]
    assert json.loads((run / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["forwards"] == {"image": 12 * 24 * 3, "text": 12 * 24 * 3}
    assert (run / "best").resolve().name == f"best-{best['step']:08d}"
    assert len(list((run / "checkpoints").iterdir())) == 2  # older ones are gone


def test_a_stage_of_each_kind_logs_its_own_losses(photos, tmp_path):
    run = tmp_path / "run"
    train(tiny.recipe(photos), run)
    names = {e["stage"]: {k for k in e if k.startswith("loss/")} for e in tiny.events(run, "step")}
    assert names == {
        "uni": {"loss/image_image", "loss/text_text"},
        "align": {"loss/image_text"},
        "sharpen": {"loss/image_text", "loss/image_image", "loss/text_text"},
    }
    (event,) = tiny.events(run, "round")
    assert event["clusters"] == 6
    assert {"hardness", "hardness_random", "masked", "size_min", "size_max"} <= event.keys()
    for event in tiny.events(run, "step"):
        if event["stage"] == "sharpen":
            weighed = (1.0, "image_text"), (0.3, "image_image"), (0.1, "text_text")
            assert event["loss"] == pytest.approx(sum(w * event[f"loss/{name}"] for w, name in weighed))


def test_a_run_in_micro_batches_is_the_run_in_whole_ones(photos, tmp_path):
    losses = {}
    for micro in (None, 3):
        sections = {"model": {"dropout": 0}, "train": {"micro_batch": micro}}
        train(tiny.recipe(photos, tiny.ALIGN, ALL, **sections), tmp_path / str(micro))
        losses[micro] = [event["loss"] for event in tiny.events(tmp_path / str(micro), "step")]
    assert losses[3] == pytest.approx(losses[None], rel=1e-3)
    assert losses[3] != losses[None]


def test_captions_take_turns_across_stages(photos, tmp_path, monkeypatch):
    turns = []

    def recording(data, items, stage, current, turn, seed):
        turns.append(turn)
        return make_batch(data, items, stage, current, turn, seed)

    monkeypatch.setattr(loop, "make_batch", recording)
    train(tiny.recipe(photos, tiny.UNI, tiny.ALIGN), tmp_path / "run")
    assert turns == [0, 0, 0, 1, 1, 1]


def test_equal_seeds_give_equal_losses_and_others_do_not(photos, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny.recipe(photos, tiny.ALIGN, ALL, seed=seed), tmp_path / name)
    a, b, c = ([e["loss"] for e in tiny.events(tmp_path / name, "step")] for name in "abc")
    assert a == b
    assert a != c


def test_validation_may_be_rarer_than_epochs_but_the_end_is_always_looked_at(photos, tmp_path):
    heard = []
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 5}, train={"validate_every": 2})
    train(recipe, tmp_path / "run", listener=heard.append)
    assert [event["epoch"] for event in heard if event["kind"] == "eval"] == [2, 4, 5]
    assert (tmp_path / "run/best").exists()


def test_averaged_weights_are_what_is_judged_and_kept_as_best(photos, tmp_path):
    run = tmp_path / "run"
    train(tiny.recipe(photos, tiny.ALIGN, train={"ema": 0.5}), run)
    best, last = (load_file(run / name / "model.safetensors") for name in ("best", "last"))
    average = load_file(run / "last" / "training.safetensors")
    assert not torch.equal(best["image.cross.weight"], last["image.cross.weight"])
    assert all(torch.equal(tensor, average[f"average.module.{name}"]) for name, tensor in best.items())


def test_bf16_trains_with_every_kind_of_view(photos, tmp_path):
    views = {"image": {"blur": 0.5, "jitter": 0.5, "grey": 0.5}, "text": "perturb", "pictures": 2}
    train(tiny.recipe(photos, ALL, train={"precision": "bf16"}, views=views), tmp_path / "run")
    assert all(math.isfinite(event["loss"]) for event in tiny.events(tmp_path / "run", "step"))


def test_images_alone_train_with_few_texts_alone(tmp_path):
    """Batches without a text skip the text loss; nothing is paired."""
    root = tiny.write_set(tmp_path / "set")
    (root / "captions.csv").unlink()
    (root / "texts.txt").write_text("a red square\nsomething blue\nnothing at all\n")
    recipe = tiny.recipe(root, tiny.UNI, data={"split": {"train": None, "val": None}})
    model = tiny.model()
    items = [Item(p.name, ImageFile(p)) for p in sorted((root / "images").iterdir())]
    items += [Item(str(n), None, (text,)) for n, text in enumerate(("a red square", "blue", "nothing"))]
    data, _ = make_dataset(Items.of(items), model, recipe.data, side=36, where=None, progress=lambda *_: None)
    plan = epoch_plan(data, recipe.stages[0], 0, 4, None, np.random.default_rng(0))
    found = [
        backward(model, make_batch(data, batch, recipe.stages[0], None, 0, (0, n)), recipe.stages[0], PLAIN)[
            0
        ]
        for n, batch in enumerate(plan)
    ]
    assert sum("text_text" in parts for parts in found) == 3
    assert all(math.isfinite(parts["image_image"]) for parts in found)


def test_a_run_over_such_batches_logs_what_there_is(tmp_path):
    root = tmp_path / "folder"
    tiny.write_set(root)
    (root / "captions.csv").unlink()
    for number in range(3):
        (root / "images" / f"{number:03d}.txt").write_text(f"the square number {number}\nanother {number}\n")
    data = {"root": str(root / "images"), "split": {"train": None, "val": None}}
    train(tiny.recipe("", tiny.UNI, data=data, train={"batch_size": 4}), tmp_path / "run")
    steps = tiny.events(tmp_path / "run", "step")
    assert len(steps) == 8
    assert sum("loss/text_text" in event for event in steps) == 3


# -- runs that stop ---------------------------------------------------------------------------------


def poisoned_at(call, monkeypatch):
    """The n-th gradient is not a number."""
    calls = []

    def poisoned(model, *args):
        calls.append(1)
        result = backward(model, *args)
        if len(calls) == call:
            model.image.cross.weight.grad[0, 0] = torch.nan
        return result

    monkeypatch.setattr(loop, "backward", poisoned)


@pytest.mark.parametrize(("save_minutes", "last"), [(5, 3), (1e-9, 4)])
def test_what_is_not_finite_stops_the_run_before_it_is_kept(
    photos, tmp_path, monkeypatch, save_minutes, last
):
    poisoned_at(5, monkeypatch)  # the second step of the second epoch
    run = tmp_path / "run"
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 3}, train={"save_minutes": save_minutes})
    with pytest.raises(TrainingError) as caught:
        train(recipe, run)
    assert "step 5 of stage 'align': not finite: grad_norm" in str(caught.value)
    assert "Lower optim.image_lr" in str(caught.value)
    assert [event["step"] for event in tiny.events(run, "step")] == [1, 2, 3, 4]
    assert (run / "last").resolve().name == f"step-{last:08d}"
    weights = load_file(run / "last" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_monstrous_learning_rate_is_told_in_a_sentence(photos, tmp_path):
    stage = tiny.ALIGN | {"epochs": 4, "optim": {"image_lr": 1e38, "head_lr": 1e38, "text_lr": 1e38}}
    with pytest.raises(TrainingError, match="not finite"):
        train(tiny.recipe(photos, stage), tmp_path / "run")


@pytest.mark.parametrize("views", [{}, {"pictures": 2}, {"captions": 3}, {"pictures": 2, "captions": 2}])
def test_a_loss_that_stays_at_chance_is_noted(photos, tmp_path, views):
    still = {"image_lr": 0, "text_lr": 0, "head_lr": 0}
    losses = {"image_text": 1.0}
    stage = {"name": "stuck", "epochs": 1, "losses": losses, "optim": still, "views": views}
    recipe = tiny.recipe(photos, stage, model={"temperature": 100.0}, train={"batch_size": 2})
    heard = []
    train(recipe, tmp_path / "run", listener=heard.append)
    (note,) = [event["text"] for event in heard if event["kind"] == "note"]
    assert "chance" in note
    assert "Check that captions belong to their images" in note


def test_a_full_disk_leaves_the_last_good_checkpoint_and_says_so(photos, tmp_path, monkeypatch):
    recipe = tiny.recipe(photos, tiny.ALIGN | {"epochs": 3})
    run, calls = tmp_path / "run", []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 4:  # of the second epoch: optimizer and training are two calls a checkpoint
            raise OSError(28, "No space left on device")
        return save_file(tensors, path)

    save_file = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError) as caught:
        train(recipe, run)
    assert "No space left on device" in str(caught.value)
    assert "the one before is untouched. Make room and go on with --resume" in str(caught.value)
    assert (run / "last").resolve().name == "step-00000003"
    assert not list((run / "checkpoints").glob("*.partial"))
    monkeypatch.undo()
    train(recipe, run, resume=True)
    train(recipe, tmp_path / "unbroken")
    assert [e["loss"] for e in tiny.events(run, "step")] == [
        e["loss"] for e in tiny.events(tmp_path / "unbroken", "step")
    ]


def test_a_full_disk_while_logging_is_a_sentence(photos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.EventLog, "sync", full)
    with pytest.raises(
        TrainingError, match=r"run: .*No space left on device; mend that and go on with --resume"
    ):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")


def test_a_picture_that_goes_away_while_training_is_a_sentence(tmp_path):
    root = tiny.write_set(tmp_path / "set")
    recipe = tiny.recipe(root, tiny.ALIGN | {"epochs": 2}, data={"cache": "none"})

    def listener(event):
        if event["kind"] == "eval":
            for path in (root / "images").iterdir():
                path.unlink()

    with pytest.raises(DataError, match=r"\d\d\d\.png: cannot be read: No such file"):
        train(recipe, tmp_path / "run", listener=listener)
    assert TwoTower.load(tmp_path / "run").dim == 16  # what the first epoch left


def test_running_out_of_memory_says_what_to_set(photos, tmp_path, monkeypatch):
    def hungry(*_):
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(loop, "backward", hungry)
    with pytest.raises(TrainingError, match=r"out of memory: set train\.micro_batch"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")


def test_a_folder_that_holds_something_is_refused(photos, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty: choose another folder with --out"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path)
    with pytest.raises(CheckpointError, match=r"notes\.txt"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_data_that_cannot_feed_a_loss_is_refused_before_training(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    data = {"root": str(tmp_path), "split": {"train": None, "val": None}}
    with pytest.raises(DataError, match=r"stage .align. wants the losses image_text, but .* fewer than two"):
        train(tiny.recipe("", tiny.ALIGN, data=data), tmp_path / "run")


def test_validation_without_a_pair_is_refused_before_training(photos, tmp_path, monkeypatch):
    def images_alone(recipe):
        items, val, problems = read_splits(recipe)
        return items, Items.of([Item(item.image_id, item.image) for item in val]), problems

    monkeypatch.setattr(loop, "read_splits", images_alone)
    with pytest.raises(DataError, match=r"none of the 8 validation items .*data\.split\.val=null"):
        train(tiny.recipe(photos, tiny.ALIGN), tmp_path / "run")


def test_dropout_views_need_dropout(photos, tmp_path):
    recipe = tiny.recipe(photos, tiny.UNI, views={"text": "dropout"}, model={"dropout": 0})
    with pytest.raises(RecipeError, match=r"views\.text=dropout needs .*: set model\.dropout=0\.1"):
        train(recipe, tmp_path / "run")


def test_forwards_of_a_step_count_views_and_backwards():
    recipe = tiny.recipe("photos", ALL, tiny.ALIGN | {"freeze": ["text"]})
    assert step_forwards(recipe.stages[0], 10, 20) == {"image": 10 * 2 * 3, "text": 20 * 2 * 3}
    assert step_forwards(recipe.stages[1], 10, 20) == {"image": 10 * 3, "text": 20}


def test_captions_are_tokenised_once(photos, monkeypatch):
    _, _, data = prepared(photos, tiny.ALIGN)
    monkeypatch.setattr(Captions, "_encode", None)
    make_batch(data, np.arange(4), tiny.recipe(photos, tiny.UNI).stages[0], None, 0, (0,))
