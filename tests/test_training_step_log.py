"""When the losses of steps are looked at, and what is told of them."""

from types import SimpleNamespace

import pytest
import torch

import tiny
from unicross.errors import TrainingError
from unicross.training.step_log import LOG_EVERY, StepLog

OPTIMIZER = SimpleNamespace(param_groups=[{"part": "image", "lr": 1e-5}, {"part": "head", "lr": 1e-3}])
BATCH = SimpleNamespace(image_ids=range(3), text_ids=range(5))


@pytest.fixture
def told():
    return []


@pytest.fixture
def log(told):
    """Of a stage with a whole image-text and a tenth of the text-text loss."""
    losses = {"image_text": 1.0, "text_text": 0.1}
    (stage,) = tiny.recipe("photos", tiny.ALIGN | {"losses": losses}).stages
    return StepLog(stage, lambda kind, **values: told.append((kind, values)))


def record(log, step, image_text=2.0, grad_norm=0.5):
    losses = {"image_text": image_text, "text_text": 4.0, "grad_norm": grad_norm}
    log.record(step, OPTIMIZER, BATCH, {name: torch.tensor(value) for name, value in losses.items()})


def test_losses_are_told_every_few_steps_and_the_rest_when_asked(log, told):
    for step in range(1, LOG_EVERY):
        record(log, step)
    assert (told, log.unseen, log.image_text) == ([], LOG_EVERY - 1, [])
    record(log, LOG_EVERY)
    assert [values["step"] for _, values in told] == list(range(1, LOG_EVERY + 1))
    assert log.unseen == 0
    record(log, LOG_EVERY + 1)
    log.flush()
    log.flush()  # nothing is told twice
    assert [values["step"] for _, values in told] == list(range(1, LOG_EVERY + 2))


def test_an_event_has_the_weighted_loss_its_parts_the_rate_of_the_heads_and_the_larger_side(log, told):
    record(log, 7, image_text=2.5)
    log.flush()
    ((kind, event),) = told
    assert kind == "step"
    assert event.pop("pairs_per_second") > 0
    assert event == pytest.approx(
        {
            "step": 7,
            "lr": 1e-3,
            "pairs": 5,
            "loss": 2.5 + 0.1 * 4.0,
            "loss/image_text": 2.5,
            "loss/text_text": 4.0,
            "grad_norm": 0.5,
        }
    )
    assert log.image_text == [2.5]


@pytest.mark.parametrize("what", ["image_text", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_after_the_steps_before_it_are_told(log, told, what, value):
    record(log, 1)
    record(log, 2, **{what: value})
    with pytest.raises(TrainingError, match=rf"step 2 of stage 'align': not finite: .*{what}"):
        log.flush()
    assert [values["step"] for _, values in told] == [1]
