"""Groups of parameters, their rates, and the schedule."""

import math

import pytest

import tiny
from unicross.stage import FrozenLayers, Optim
from unicross.training.optim import (
    freeze,
    make_optimizer,
    parameters_of,
    schedule_shape,
    set_rates,
    warmup_cosine,
)


def test_every_parameter_has_one_group_and_its_rate():
    model = tiny.model()
    optimizer = make_optimizer(model)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    optim = Optim(image_lr=1.0, text_lr=10.0, head_lr=100.0, weight_decay=0.3)
    set_rates(optimizer, optim, 0.1)
    rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    rates, decays = ({n: of[id(p)] for n, p in model.named_parameters()} for of in (rate, decay))

    def of(values, text):
        found = {round(value, 9) for name, value in values.items() if text in name}
        assert len(found) == 1, (text, found)
        return found.pop()

    assert of(rates, "image.backbone.layernorm") == pytest.approx(0.1)
    assert of(rates, "text.backbone.encoder.layer.") == pytest.approx(1.0)
    assert of(rates, "text.backbone.embeddings.") == pytest.approx(1.0)
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
        tiny.ALIGN | {"optim": {"restart_schedule": True, "warmup": 0.0}},
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
    freeze(model, [part], FrozenLayers())
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    wanted = {id(p) for p in parameters_of(model, part)}
    assert {id(model.get_parameter(name)) for name in still} == wanted
    prefix = {"temperature": ("log_scale",)}.get(part)
    if part.endswith("_head"):
        prefix = (f"{part[:-5]}.cross", f"{part[:-5]}.uni")
    assert all(name.startswith(prefix or (f"{part}.backbone",)) for name in still)
    freeze(model, [], FrozenLayers())
    assert all(p.requires_grad for p in model.parameters())


def test_a_warm_up_is_linear_and_the_cosine_after_it_begins_at_one_and_nears_zero():
    """Two steps of warm-up of six: a third, two thirds, then four steps of half a cosine."""
    rates = [warmup_cosine(step, 2, 6) for step in range(6)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])
    assert warmup_cosine(6, 2, 6) == pytest.approx(0.0)
    assert [warmup_cosine(step, 0, 2) for step in range(2)] == pytest.approx([1.0, 0.5])
    assert warmup_cosine(0, 0, 0) == 1.0
