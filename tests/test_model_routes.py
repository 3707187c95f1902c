"""Pairs that sentence-transformers holds as two routes; its own vectors of them: test_export.py."""

import json
import shutil

import numpy as np
import pytest
import torch

import tiny
from pretrained import TEXTS
from unicross.errors import CheckpointError
from unicross.export import export
from unicross.model import TwoTower
from unicross.recipe import make_recipe

ROUTER = "router_config.json"
IMAGE_DENSE, TEXT_DENSE = "image_2_Dense/config.json", "text_2_Dense/config.json"
IMAGE_POOLING, TEXT_POOLING = "image_1_Pooling/config.json", "text_1_Pooling/config.json"
TRANSFORMER = "text_0_Transformer/sentence_bert_config.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with ViT by class token and BERT by mean, and the model that it is of."""
    folder = tmp_path_factory.mktemp("routes")
    model = tiny.model(TEXTS, image_pool="cls", text_pool="mean")
    with torch.no_grad():
        model.log_scale.fill_(3.5)
    export(model, folder, folder / "pair", "sentence-transformers")
    return folder / "pair", model


def test_a_pair_of_routes_is_tuned_and_saved(made, photos, tmp_path):
    from unicross.training import train

    folder, model = made
    raw = tiny.raw_recipe(photos, tiny.ALIGN | {"fit_heads": True})
    raw["model"] = {"pair": str(folder)}
    raw["data"] = {"root": str(photos)}
    train(make_recipe(raw), tmp_path / "run")
    tuned = TwoTower.load(tmp_path / "run")
    assert (tuned.image.pool, tuned.text.pool) == ("cls", "mean")
    assert np.abs(tuned.encode_texts(TEXTS) - model.encode_texts(TEXTS)).max() > 0.01
    assert TwoTower.load(folder).scale.item() == pytest.approx(model.scale.item())


def edited(made, tmp_path, file, change):
    folder = tmp_path / "pair"
    shutil.copytree(made[0], folder)
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder


def put(key, value):
    return lambda content: content.update({key: value})


WRONG = {
    "other-routes": (
        ROUTER,
        put("structure", {"query": [], "document": []}),
        "its routes are query, document",
    ),
    "another-module": (
        ROUTER,
        lambda c: c["types"].update(text_1_Pooling="x.LSTM"),
        "Transformer, LSTM, Dense",
    ),
    "no-types": (ROUTER, put("types", {}), "its routes cannot be read: 'image_0_Transformer'"),
    "no-mapping": (ROUTER, put("structure", 3), "its routes cannot be read"),
    "lost": (ROUTER, lambda c: c["structure"]["text"].append("gone_Normalize"), "cannot be read: 'gone_Norm"),
    "tanh": (TEXT_DENSE, put("activation_function", "torch.nn.Tanh"), r"text_2_Dense is not linear \(Tanh\)"),
    "residual": (TEXT_DENSE, put("use_residual", True), "text_2_Dense is not linear"),
    "width": (IMAGE_DENSE, put("in_features", 7), "size mismatch for weight"),
    "max": (TEXT_POOLING, put("pooling_mode", "max"), "its route of text takes max of last_hidden_state"),
    "all-tokens": (IMAGE_POOLING, put("pooling_mode", "mean"), "by the mean of all tokens"),
    "both": (IMAGE_POOLING, put("pooling_mode", ["cls", "mean"]), "by class token and mean together"),
    "small-letters": (TRANSFORMER, put("do_lower_case", True), "do_lower_case"),
    "another-method": (
        TRANSFORMER,
        lambda c: c["modality_config"]["text"].update(method="encode"),
        "its route of text takes mean of None",
    ),
}


@pytest.mark.parametrize(("file", "change", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_pair_of_towers_is_refused(file, change, message, made, tmp_path):
    folder = edited(made, tmp_path, file, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        TwoTower.load(folder)
    assert str(folder) in str(caught.value)


def test_a_module_that_is_lost_is_named(made, tmp_path):
    folder = edited(made, tmp_path, ROUTER, dict.copy)
    shutil.rmtree(folder / "text_1_Pooling")
    with pytest.raises(CheckpointError, match=r"text_1_Pooling has no config.json: fetch it again"):
        TwoTower.load(folder)
    (folder / ROUTER).unlink()
    with pytest.raises(CheckpointError, match=r"has no router_config\.json"):
        TwoTower.load(folder)


def test_heads_must_fit_encoders_and_each_other(made, tmp_path):
    folder = edited(made, tmp_path, ROUTER, lambda content: content["structure"]["text"].pop())
    with pytest.raises(CheckpointError, match="vectors of 16 numbers, its texts of 32"):
        TwoTower.load(folder)
