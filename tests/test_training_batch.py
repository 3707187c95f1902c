"""What a batch holds, and the batches that a stage plans."""

import numpy as np
import pytest
import torch

import tiny
from training_parts import ALL, batch_of, clustered_round, prepared
from unicross.batches import false_negatives
from unicross.errors import DataError
from unicross.prefetch import prefetch
from unicross.stage import Batches
from unicross.training.plan import epoch_plan, plan_epoch, steps_per_epoch
from unicross.training.state import State


def test_a_batch_is_decided_by_its_seed(photos):
    recipe, _, data = prepared(photos, ALL)
    one, again, other = (
        batch_of(data, np.arange(6), recipe.stages[0], turn=2, seed=seed) for seed in (1, 1, 2)
    )
    assert all(map(torch.equal, one.pixels, again.pixels))
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
    batch = batch_of(data, np.arange(6), recipe.stages[0])
    assert (len(batch.image_views), len(batch.text_views)) == (images, texts)
    assert [len(pixels) for pixels in batch.pixels] == [6] * bool(images)


def test_the_image_text_loss_sees_the_first_of_the_two_uni_modal_views(photos):
    views = {"image": {"blur": 0.0, "jitter": 0.0}, "image_uni": {"blur": 1.0, "jitter": 1.0}}
    recipe, _, data = prepared(photos, tiny.UNI, ALL, views=views)
    uni, joint = (batch_of(data, np.arange(6), stage) for stage in recipe.stages)
    assert [len(view.blurred) for view in uni.image_views] == [6, 6]
    assert [len(view.blurred) for view in joint.image_views] == [0, 6]


def test_text_views_are_the_same_caption_or_a_sibling(photos):
    for kind in ("dropout", "sibling"):
        recipe, model, data = prepared(photos, tiny.UNI, views={"text": kind})
        first, second = batch_of(data, np.arange(6), recipe.stages[0]).text_views
        tokenizer = model.tokenizer
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
            assert all(a in own for a, own in zip(after, captions, strict=True))


def test_captions_take_turns_over_the_epochs(photos):
    recipe, _, data = prepared(photos, tiny.ALIGN)
    seen = set()
    for turn in range(3):
        view = batch_of(data, np.arange(1), recipe.stages[0], turn=turn).text_views[0]
        seen.add(tuple(view.ids[0].tolist()))
    assert len(seen) == 3


def test_items_alone_join_only_the_losses_that_can_use_them(photos):
    recipe, _, data = prepared(photos, ALL, tiny.ALIGN, alone=2)
    items = np.array([24, 0, 25, 1, 26, 27])  # image, pair, text, pair, image, text
    both, cross = (batch_of(data, items, stage) for stage in recipe.stages)
    assert both.pairs == cross.pairs == 2
    assert both.image_ids.tolist() == [0, 1, 24, 26]
    assert both.text_ids.tolist() == [0, 1, 25, 27]
    assert cross.image_ids.tolist() == cross.text_ids.tolist() == [0, 1]


def test_presumed_false_negatives_are_those_of_the_round(photos):
    recipe, model, data = prepared(photos, ALL)
    current = clustered_round(data, model, recipe.stages[0])
    clusters, items = current.clusters, np.array([3, 1, 2])
    batch = batch_of(data, items, recipe.stages[0], current)
    assert batch.masked is not None
    assert (
        batch.masked.tolist() == false_negatives(clusters.image[items], clusters.text[items], 0.95).tolist()
    )
    assert batch_of(data, items, recipe.stages[0]).masked is None  # nobody knows
    off = recipe.stages[0].model_copy(update={"batches": Batches(kind="clustered", mask_above=None)})
    assert batch_of(data, items, off, current).masked is None


def test_pairs_know_what_they_were_brought_together_with(photos):
    """Random batches were brought together with nothing."""
    recipe, model, data = prepared(photos, ALL | {"batches": ALL["batches"] | {"negatives_from": 9}})
    stage = recipe.stages[0]
    current = clustered_round(data, model, stage)
    clusters, items = current.clusters, np.array([3, 1, 2, 5])
    batch = batch_of(data, items, stage, current)
    assert batch.cluster.tolist() == clusters.cluster[items].tolist()
    assert len(set(batch_of(data, items, stage).cluster.tolist())) == 4
    as_they_are = stage.model_copy(update={"batches": Batches(kind="clustered", negatives_from=None)})
    assert batch_of(data, items, as_they_are, current).cluster is None


def test_batches_made_ahead_come_in_order_and_tell_their_error():
    assert list(prefetch(lambda n: n * n, range(7), depth=3)) == [n * n for n in range(7)]
    assert list(prefetch(str, [])) == []

    def fails(n):
        if n == 2:
            raise DataError("gone")
        return n

    made = prefetch(fails, range(5))
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(DataError, match="gone"):
        next(made)


@pytest.mark.parametrize("stage", [tiny.UNI, tiny.ALIGN, ALL])
@pytest.mark.parametrize("alone", [0, 9])
def test_a_plan_is_as_long_as_the_schedule_expects(photos, stage, alone):
    recipe, model, data = prepared(photos, stage, alone=alone, train={"batch_size": 7})
    state = State(model, recipe, len(data.items))
    plan, _ = plan_epoch(state, data)
    assert len(plan) == steps_per_epoch(data, recipe.stages[0], 7)


@pytest.mark.parametrize(("fraction", "shares"), [(0.5, [0.5, 0.5, 0.5]), ([1.0, 0.0], [1.0, 0.5, 0.0])])
def test_the_share_of_random_batches_may_ramp_over_the_stage(photos, fraction, shares):
    batches = {"kind": "clustered", "cluster_size": 6, "random_fraction": fraction}
    recipe, model, data = prepared(photos, ALL | {"epochs": 3, "batches": batches})
    stage = recipe.stages[0]
    current = clustered_round(data, model, stage)
    for epoch, share in enumerate(shares):
        plan = epoch_plan(data, stage, epoch, 6, current, np.random.default_rng(0))
        assert sum(len(set(current.clusters.cluster[batch])) == 1 for batch in plan) == round((1 - share) * 4)
