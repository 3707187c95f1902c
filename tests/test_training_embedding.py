"""One model, one answer: what a run says of its model is what evaluation says of the weights it saved."""

import inspect

import numpy as np
import pytest

import tiny
import unicross
from unicross.data.load import read_splits
from unicross.device import autocast
from unicross.evaluation import evaluate_embeddings
from unicross.model import TwoTower
from unicross.model.two_tower import TEXTS_AT_ONCE
from unicross.training import embedding, train


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_last_look_of_a_run_is_the_evaluation_of_its_weights(photos, tmp_path, monkeypatch, precision):
    """To the bit, vectors and metrics, whatever the towers used while training."""
    monkeypatch.setattr("unicross.model.inference.autocast", lambda device, _: autocast(device, precision))
    while_training = []

    def watched(images, texts, *args, **options):
        while_training.append((images, texts))
        return evaluate_embeddings(images, texts, *args, **options)

    monkeypatch.setattr(embedding, "evaluate_embeddings", watched)
    learning = {"image_lr": 3e-3, "text_lr": 3e-3, "head_lr": 5e-3}
    recipe = tiny.recipe(
        photos, tiny.ALIGN | {"epochs": 3, "optim": learning}, train={"precision": precision}
    )
    train(recipe, tmp_path / "run")
    _, validation, _ = read_splits(recipe.data)
    assert len(validation) == 8

    last = TwoTower.load(tmp_path / "run" / "last")
    images, texts = while_training[-1]
    assert np.array_equal(images, last.encode_images([item.images[0] for item in validation]))
    assert np.array_equal(texts, last.encode_texts([text for item in validation for text in item.captions]))

    events = tiny.events(tmp_path / "run", "eval")
    best = max(events, key=lambda event: event["rsum"])
    for model, event in ((last, events[-1]), (TwoTower.load(tmp_path / "run"), best)):
        metrics = unicross.evaluate(model, validation).metrics
        names = [name for name in metrics if name == "rsum" or name.startswith(("i2t/", "t2i/", "t2t/"))]
        assert len(names) > 12
        assert {name: event[name] for name in names} == {name: metrics[name] for name in names}


def test_evaluation_batches_as_validation_does():
    """In bf16 a vector depends a little on what else is in its batch."""
    batches = inspect.signature(unicross.evaluate).parameters
    assert batches["batch_size"].default is None  # the model's own, as in validation
    texts = inspect.signature(TwoTower.encode_texts).parameters
    assert texts["batch_size"].default == TEXTS_AT_ONCE
