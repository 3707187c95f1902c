"""Exported models, each loaded by its own library, give the same embeddings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

import tiny
from pretrained import ALL, SQUASH, TEXTS, _clip, clip_tokenizer, make_pair
from unicross.errors import CheckpointError
from unicross.export import export
from unicross.model import TwoTower, open_clip_siglip

pytestmark = pytest.mark.filterwarnings("ignore:.*BlipModel")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(2)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (47, 61, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("family", [*ALL, "naflex"])
def test_a_pair_comes_back_as_what_it_was(family, tmp_path, pictures, capsys):
    source = make_pair(family, tmp_path / "pair")
    capsys.readouterr()
    model = TwoTower.load(source)
    export(model, source, tmp_path / "out", "hf")
    assert capsys.readouterr().err == ""  # transformers draws bars of its own, on a terminal or not
    now = json.loads((tmp_path / "out" / "config.json").read_text())["architectures"]
    was = source / "config.json"
    assert now == (json.loads(was.read_text())["architectures"] if was.exists() else ["SiglipModel"])
    again = TwoTower.load(tmp_path / "out")
    np.testing.assert_allclose(again.encode_images(pictures), model.encode_images(pictures), atol=1e-5)
    np.testing.assert_allclose(again.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=1e-5)
    assert again.scale.item() == pytest.approx(model.scale.item(), rel=1e-5)
    assert (again.bias is None) == (model.bias is None)


def test_an_exported_run_comes_back_with_weights_that_can_be_trained(tmp_path):
    """What made its poolers linear is undone: heads of the size they had, and no tiny weights."""
    model = tiny.model(TEXTS, image=tiny.VIT, text=tiny.BERT, image_pool="cls", text_pool="cls")
    export(model, tmp_path, tmp_path / "out", "hf")
    again = TwoTower.load(tmp_path / "out")
    for tower, source in ((again.image, model.image), (again.text, model.text)):
        assert tower.pool == "cls"
        assert tower.backbone.pooler is None
        torch.testing.assert_close(tower.cross.weight, source.cross.weight, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_transformers_makes_the_same_of_an_exported_run(tmp_path, pictures):
    """Two towers that were no pair: class tokens, handed on by poolers that are made linear."""
    text = tiny.BERT | {"initializer_range": 0.3}
    model = tiny.model(TEXTS, image=tiny.VIT, text=text, image_pool="cls", text_pool="cls")
    export(model, tmp_path, tmp_path / "out", "hf")
    pair = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert type(pair).__name__ == "VisionTextDualEncoderModel"
    processor = AutoProcessor.from_pretrained(tmp_path / "out", backend="pil")
    inputs = processor(
        text=list(TEXTS), images=[Image.open(p) for p in pictures], padding=True, return_tensors="pt"
    )
    made = pair(**inputs)
    np.testing.assert_allclose(made.text_embeds.numpy(), model.encode_texts(TEXTS), atol=1e-4)
    np.testing.assert_allclose(made.image_embeds.numpy(), model.encode_images(pictures), atol=1e-4)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_makes_the_same(family, tmp_path, pictures):
    library = pytest.importorskip("sentence_transformers")
    source = make_pair(family, tmp_path / "pair")
    model = TwoTower.load(source)
    export(model, source, tmp_path / "out", "sentence-transformers")
    theirs = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    images = theirs.encode([Image.open(path) for path in pictures])
    np.testing.assert_allclose(images, model.encode_images(pictures), atol=1e-4)
    np.testing.assert_allclose(theirs.encode(list(TEXTS)), model.encode_texts(TEXTS), atol=1e-4)


GPT = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 200}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
TOWERS = {
    "as-recipes-have-it": {"image_pool": "cls", "text_pool": "mean"},
    "mean-of-patches": {"image_pool": "mean", "text_pool": "cls"},
    "poolers": {"image_pool": "pooler", "text_pool": "pooler"},
    "no-pooler": {"text": {"model_type": "distilbert"} | tiny.DISTIL, "text_pool": "cls"},
    "last-token": {"image_pool": "cls", "text": GPT, "text_pool": "last"},
    "no-tokens-of-patches": {"image": RESNET, "image_pool": None, "text_pool": "mean"},
}


@pytest.mark.parametrize("changes", TOWERS.values(), ids=TOWERS)
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_routes_to_two_towers(changes, tmp_path, pictures):
    """Two towers that were no pair; and what the library makes of their folder when it saves it is read."""
    library = pytest.importorskip("sentence_transformers")
    text = tiny.BERT | {"initializer_range": 0.3}
    model = tiny.model(TEXTS, **{"image": tiny.VIT | {"initializer_range": 0.3}, "text": text} | changes)
    export(model, tmp_path, tmp_path / "out", "sentence-transformers")
    theirs = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    images, texts = model.encode_images(pictures), model.encode_texts(TEXTS)
    shown = [Image.open(path) for path in pictures]
    np.testing.assert_allclose(theirs.encode(shown), images, atol=1e-4)
    np.testing.assert_allclose(theirs.encode(list(TEXTS)), texts, atol=1e-4)
    np.testing.assert_allclose(theirs.encode(shown[1]), images[1], atol=1e-4)
    np.testing.assert_allclose(theirs.encode_query(TEXTS[2]), texts[2], atol=1e-4)
    np.testing.assert_allclose(theirs.encode_document(shown[0]), images[0], atol=1e-4)
    theirs.save(str(tmp_path / "saved"))
    for folder in ("out", "saved"):
        again = TwoTower.load(tmp_path / folder)
        np.testing.assert_allclose(again.encode_images(pictures), images, atol=1e-5)
        np.testing.assert_allclose(again.encode_texts(TEXTS), texts, atol=1e-5)


def test_a_clip_goes_to_open_clip_and_comes_back(tmp_path, pictures):
    """Against open_clip itself: test_model_open_clip.py, where it is installed."""
    tokenizer = clip_tokenizer()
    pair = _clip("clip", tokenizer)
    pair.config.text_config.intermediate_size = 128
    import transformers

    torch.manual_seed(0)
    pair.config.text_config.hidden_act = pair.config.vision_config.hidden_act = "quick_gelu"
    pair = transformers.CLIPModel(pair.config).eval()
    pair.save_pretrained(tmp_path / "pair")
    tokenizer.save_pretrained(tmp_path / "pair")
    transformers.CLIPImageProcessorPil(**SQUASH, do_center_crop=False).save_pretrained(tmp_path / "pair")
    model = TwoTower.load(tmp_path / "pair")
    export(model, tmp_path / "pair", tmp_path / "out", "open_clip")
    again = TwoTower.load(tmp_path / "out")
    np.testing.assert_allclose(again.encode_images(pictures), model.encode_images(pictures), atol=1e-6)
    np.testing.assert_allclose(again.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=1e-6)


def test_a_siglip_goes_to_open_clip_and_comes_back(tmp_path, pictures, monkeypatch):
    monkeypatch.setitem(open_clip_siglip.SIZES, "base", (48, 2, 12, 64))
    monkeypatch.setitem(open_clip_siglip.VITS, "vit_base_patch8_siglip_32", "gelu")
    source = make_pair("siglip-open_clip", tmp_path / "pair")
    model = TwoTower.load(source)
    export(model, source, tmp_path / "out", "open_clip")
    was, now = (load_file(folder / "open_clip_model.safetensors") for folder in (source, tmp_path / "out"))
    assert was.keys() == now.keys()
    for name, tensor in was.items():
        torch.testing.assert_close(now[name], tensor, rtol=1e-6, atol=0)
    again = TwoTower.load(tmp_path / "out")
    np.testing.assert_allclose(again.encode_images(pictures), model.encode_images(pictures), atol=1e-6)
    np.testing.assert_allclose(again.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=1e-6)


@pytest.mark.parametrize("target", ["hf", "sentence-transformers", "open_clip"])
def test_pooled_layers_leave_as_onnx_only(target, tmp_path):
    layers = tiny.model(TEXTS, image_pool="layers")
    with pytest.raises(
        CheckpointError, match=r"sees the last layers.* --to onnx, or train it with model\.im"
    ):
        export(layers, tmp_path, tmp_path / "out", target)


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    model = tiny.model(TEXTS)
    for target in ("hf", "open_clip"):
        with pytest.raises(
            CheckpointError, match=r"no pair of transformers does: write it --to sentence-tra"
        ):
            export(model, tmp_path, tmp_path / "out", target)
    no_pooler = tiny.model(
        TEXTS, image_pool="cls", text={"model_type": "distilbert"} | tiny.DISTIL, text_pool="cls"
    )
    with pytest.raises(CheckpointError, match=r"\(distilbert\) takes its first token without .* --to onnx$"):
        export(no_pooler, tmp_path, tmp_path / "out", "hf")
    distilled = tiny.model(TEXTS, image=tiny.VIT | {"model_type": "deit"}, image_pool="mean")
    with pytest.raises(CheckpointError, match=r"2 tokens before them, .*: write it --to onnx"):
        export(distilled, tmp_path, tmp_path / "out", "sentence-transformers")
    assert not (tmp_path / "out").exists()
    siglip = TwoTower.load(make_pair("siglip", tmp_path / "pair"))
    with pytest.raises(CheckpointError, match=r"no ViT of timm computes what this SigLIP does.*--to hf"):
        export(siglip, tmp_path / "pair", tmp_path / "out", "open_clip")
    blip = TwoTower.load(make_pair("blip", tmp_path / "blip"))
    with pytest.raises(CheckpointError, match=r"pairs of CLIP's and SigLIP's shape, and this is a BlipModel"):
        export(blip, tmp_path / "blip", tmp_path / "out", "open_clip")
    naflex = TwoTower.load(make_pair("naflex", tmp_path / "naflex"))
    for target in ("onnx", "sentence-transformers"):
        with pytest.raises(CheckpointError, match=rf"\(NaFlex\) are not written for {target}"):
            export(naflex, tmp_path / "naflex", tmp_path / "out", target)
    with pytest.raises(CheckpointError, match=r"and this is a Siglip2Model"):
        export(naflex, tmp_path / "naflex", tmp_path / "out", "open_clip")
    with pytest.raises(CheckpointError, match="is there already"):
        export(siglip, tmp_path / "pair", tmp_path / "pair", "hf")


def test_a_model_card_says_data_recipe_and_metrics(tmp_path, photos):
    from unicross.data.load import read_validation
    from unicross.evaluation import evaluate
    from unicross.run import RunFolder
    from unicross.training import train

    recipe = tiny.recipe(photos, tiny.ALIGN, model={"image_pool": "cls", "text_pool": "cls"})
    train(recipe, tmp_path / "run")
    model = TwoTower.load(tmp_path / "run")
    evaluate(model, read_validation(recipe.data)).save(RunFolder(tmp_path / "run").evaluation)
    export(model, tmp_path / "run", tmp_path / "out", "hf")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "8 images and 24 captions" in card
    assert "AutoModel.from_pretrained" in card
    assert "image_text: 1.0" in card
    assert str(photos.parent) not in card  # nobody else's business
