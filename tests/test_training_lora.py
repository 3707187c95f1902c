"""Low-rank adapters: what moves, what is kept, and what a checkpoint holds."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from unicross.errors import RecipeError
from unicross.model import TwoTower
from unicross.training import train
from unicross.training.lora import add_adapters, merged

peft = pytest.importorskip("peft")

STAGE = tiny.ALIGN | {"epochs": 2}
LORA = {"image": {"rank": 4}, "text": {"rank": 2, "alpha": 4}}


def test_an_adapter_changes_nothing_before_it_has_moved():
    model = tiny.model()
    before = model.encode_texts(["a red square", "blue"])
    add_adapters(model, tiny.recipe("nowhere", train={"lora": LORA}).train.lora)
    np.testing.assert_allclose(model.eval().encode_texts(["a red square", "blue"]), before, atol=1e-6)


def test_merged_weights_compute_what_the_adapters_do():
    model, plain = tiny.model(), tiny.model()
    add_adapters(model, tiny.recipe("nowhere", train={"lora": LORA}).train.lora)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain.load_state_dict(merged(model, model.state_dict()))
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(plain.encode_pixels(pixels), model.eval().encode_pixels(pixels), atol=2e-3)
    np.testing.assert_allclose(plain.encode_texts(["a b"]), model.encode_texts(["a b"]), atol=2e-3)


def test_only_adapters_and_heads_move_and_the_best_loads_without_them(photos, tmp_path):
    run = tmp_path / "run"
    train(tiny.recipe(photos, STAGE, train={"lora": {"image": {"rank": 4}, "text": None}}), run)
    best, first = load_file(run / "best" / "model.safetensors"), load_file(run / "last" / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in best)
    words = "text.backbone.embeddings.word_embeddings.weight"
    assert torch.equal(best[words], first[words])  # the text tower stands still
    moments = load_file(run / "last" / "optimizer.safetensors")
    assert sum(tensor.numel() for tensor in moments.values()) < 0.5 * sum(t.numel() for t in best.values())
    model = TwoTower.load(run)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["rsum"] > 0
    assert model.encode_texts(["red"]).shape == (1, 16)


def test_a_run_with_adapters_goes_on_where_it_was(photos, tmp_path):
    recipe = tiny.recipe(photos, STAGE, train={"lora": LORA})
    train(recipe, tmp_path / "whole")

    def killed(event):
        if event["kind"] == "epoch" and event["epoch"] == 1:
            seen.append(event)
        if event["kind"] == "step" and event["step"] == 5:
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed", listener=killed)
    assert seen
    train(recipe, tmp_path / "killed", resume=True)
    one, other = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_without_peft_a_sentence_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *rest):
        if name == "peft":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RecipeError, match=r"pip install 'unicross\[lora\]'"):
        add_adapters(tiny.model(), tiny.recipe("nowhere", train={"lora": LORA}).train.lora)
