"""Encoders that cannot be towers, folders and names without one: each refused with a sentence."""

import json

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoModel

import tiny
from tiny import DISTIL, SMALL
from unicross.errors import CheckpointError, RecipeError
from unicross.model import TwoTower
from unicross.model.backbones import backbone_from_folder, image_backbone, text_backbone
from unicross.model.hub import require_source
from unicross.model.tokenizer import load_tokenizer, train_tokenizer

VIT = SMALL | {"patch_size": 8}
TEXTS = {"bert": SMALL, "roberta": SMALL, "distilbert": DISTIL}
CAPTIONS = ("a red square on the left", "a blue block at the top of a grey ground")


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        ({}, "needs a known model_type (vit, bert, ...), got None"),
        ({"model_type": ["vit"]}, "needs a known model_type (vit, bert, ...), got ['vit']"),
        ({"model_type": "vat"}, "needs a known model_type (vit, bert, ...), got 'vat'"),
        (tiny.VIT | {"hidden_sise": 3}, "model_type 'vit' has no hidden_sise"),
        (tiny.VIT | {"hidden_size": "many"}, "'hidden_size' expected int, got str"),
        (
            {"model_type": "resnet", "hidden_sizes": [8], "depths": [1]},
            "model_type 'resnet' has no tokens of patches: leave image_pool out, or set pooler",
        ),
    ],
)
def test_configurations_that_make_no_image_tower(tower, message):
    with pytest.raises(RecipeError) as caught:
        tiny.model(image=tower)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_encoder_is_no_text_tower():
    with pytest.raises(RecipeError, match="'vit' cannot be a text tower: it takes no tokens"):
        tiny.model(text=tiny.VIT | {"image_size": 32})


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_longer_than_the_tower_takes_are_refused_at_once(kind):
    config = tiny.recipe(
        "x", model={"text": {"model_type": kind} | TEXTS[kind] | {"max_position_embeddings": 30}}
    )
    assert TwoTower.create(config.model, max_tokens=28, captions=CAPTIONS)
    with pytest.raises(RecipeError, match=r"cannot take texts of 31 tokens: lower data\.max_tokens below 30"):
        TwoTower.create(config.model, max_tokens=31, captions=CAPTIONS)


def test_places_without_a_model():
    with pytest.raises(
        CheckpointError, match=r"/nowhere/tower: neither a folder with a Hugging Face model nor"
    ):
        image_backbone("/nowhere/tower", 32)
    with pytest.raises(CheckpointError, match="no tokenizer could be loaded"):
        load_tokenizer("/nowhere/tower")


def test_pickled_weights_are_never_read(tmp_path):
    AutoModel.from_config(AutoConfig.for_model("vit", **VIT, image_size=32)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(CheckpointError, match="its weights could not be loaded"):
        image_backbone(str(tmp_path), 32)


def test_code_beside_a_model_is_never_run(tmp_path):
    witness = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", "evil.T"]}
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    for load in (
        lambda: image_backbone(str(tmp_path), 32),
        lambda: text_backbone(str(tmp_path)),
        lambda: load_tokenizer(tmp_path),
        lambda: backbone_from_folder(tmp_path),
    ):
        with pytest.raises(CheckpointError):
            load()
    assert not witness.exists()


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    tokenizer = train_tokenizer(CAPTIONS, 60)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="its tokenizer has no padding token"):
        load_tokenizer(tmp_path)


def test_a_path_that_is_not_there_is_refused_before_a_hub_is_asked(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        require_source("/no/such/tower")
    require_source(str(tmp_path))


def test_patches_larger_than_the_picture_are_refused():
    with pytest.raises(RecipeError, match="cannot see pictures of 32 px in patches of 100"):
        tiny.model(image=tiny.VIT | {"patch_size": 100})


def test_a_hub_that_is_not_there_is_told_at_once(monkeypatch):
    asked = []

    def model_info(_, name, **__):
        asked.append(name)
        raise ConnectionError("no network") if "cross" in name else HFValidationError("no such name")

    monkeypatch.setattr(HfApi, "model_info", model_info)
    with pytest.raises(CheckpointError, match=r"unicross/none: .*hub cannot be reached \(no network\)"):
        require_source("unicross/none")
    require_source("some-user/none")  # the hub answers
    require_source("not a name")
    assert asked[:2] == ["unicross/none", "some-user/none"]
