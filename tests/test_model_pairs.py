"""Pretrained pairs of every family, as towers: equal to transformers' own features, pixels and tokens
included."""

import json
import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BertConfig, BertModel

import tiny
from pretrained import ALL, FAMILIES, TEXTS, into_cache, make_pair
from unicross.config import ModelConfig
from unicross.data.images import load_square
from unicross.data.preparation import ExactResize, PatchCanvas
from unicross.errors import CheckpointError, RecipeError
from unicross.model import TwoTower
from unicross.model.processors import normalised
from unicross.training import train
from unicross.training.features import image_features

SIZES = ((61, 43), (40, 90), (200, 151), (32, 32), (20, 25))
pytestmark = pytest.mark.filterwarnings("ignore:.*BlipModel")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Folders by family, made when asked for."""
    root = tmp_path_factory.mktemp("pairs")

    def of(family):
        folder = root / family
        return folder if folder.exists() else make_pair(family, folder)

    return of


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """JPEGs of several sizes, larger, smaller and of other proportions than a tower's square."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for number, size in enumerate(SIZES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 11, 3), dtype=np.uint8))
        paths.append(folder / f"{number}.jpg")
        coarse.resize(size).save(paths[-1], quality=90)
    return paths


@torch.no_grad()
def theirs(family, folder, pictures):
    """Unit features of pictures and texts, and their scores, by transformers alone."""
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor([Image.open(path) for path in pictures], return_tensors="pt")["pixel_values"]
    if "siglip" in family:
        tokens = {"input_ids": tokenizer(list(TEXTS), padding="max_length", max_length=20)["input_ids"]}
    else:
        tokens = tokenizer(list(TEXTS), padding=True)
    kept = {name: torch.tensor(tokens[name]) for name in ("input_ids", "attention_mask") if name in tokens}
    images = model.get_image_features(pixel_values=pixels).pooler_output
    texts = model.get_text_features(**kept).pooler_output
    images, texts = (torch.nn.functional.normalize(features) for features in (images, texts))
    scale = 1 / model.temperature if hasattr(model, "temperature") else model.logit_scale.exp()
    scores = scale * images @ texts.T + getattr(model, "logit_bias", 0)
    return images.numpy(), texts.numpy(), scores.numpy(), pixels.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_is_equal_to_its_source(family, pairs, pictures, tmp_path):
    images, texts, scores, pixels = theirs(family, pairs(family), pictures)
    model = TwoTower.load(pairs(family))
    rules = model.picture_rules
    ours = [normalised(load_square(path, rules.side, rules.resize), rules) for path in pictures]
    np.testing.assert_allclose(np.stack(ours), pixels, rtol=0, atol=1e-5)
    found = model.encode_images(pictures), model.encode_texts(TEXTS)
    np.testing.assert_allclose(found[0], images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], texts, rtol=0, atol=1e-5)
    bias = 0.0 if model.bias is None else model.bias.item()
    np.testing.assert_allclose(
        model.scale.item() * found[0] @ found[1].T + bias, scores, rtol=0, atol=1e-5 * model.scale.item()
    )
    alone = np.concatenate([model.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, texts, rtol=0, atol=1e-5)
    model.save(tmp_path)
    again = TwoTower.load(tmp_path)
    assert again.fingerprint() == model.fingerprint()
    assert (again.encode_texts(TEXTS) == found[1]).all()
    assert (again.encode_images(pictures) == found[0]).all()
    assert (again.scale, again.bias, again.max_scale) == (model.scale, model.bias, model.max_scale)


@torch.no_grad()
def test_a_naflex_pair_is_equal_to_its_source(pairs, pictures, tmp_path):
    """Pictures in their own proportions, up to a strip of as many patches as there may be."""
    shown = [Image.open(path) for path in pictures]
    shown += [shown[0].resize(size) for size in ((400, 9), (3, 200), (1, 1))]
    inputs = AutoImageProcessor.from_pretrained(pairs("naflex"), backend="pil")(shown, return_tensors="pt")
    assert {19, 4} < {*inputs["spatial_shapes"].flatten().tolist()}
    source = AutoModel.from_pretrained(pairs("naflex")).eval()
    images = torch.nn.functional.normalize(source.get_image_features(**inputs).pooler_output).numpy()
    tokenizer = AutoTokenizer.from_pretrained(pairs("naflex"))
    cut = {"padding": "max_length", "max_length": 20, "truncation": True, "return_tensors": "pt"}
    ids = tokenizer(list(TEXTS), **cut)["input_ids"]
    texts = torch.nn.functional.normalize(source.get_text_features(input_ids=ids).pooler_output).numpy()
    model = TwoTower.load(pairs("naflex"))
    np.testing.assert_allclose(model.encode_images(shown), images, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(TEXTS), texts, rtol=0, atol=1e-5)
    alone = np.concatenate([model.encode_images([picture]) for picture in shown])
    np.testing.assert_allclose(alone, images, rtol=0, atol=1e-5)
    assert (model.scale.item(), model.bias.item()) == pytest.approx(
        (source.logit_scale.exp().item(), source.logit_bias.item())
    )
    assert "at most 19 patches of 8 px (bilinear)" in model.preparation()[0]
    model.save(tmp_path)
    again = TwoTower.load(tmp_path)
    assert again.fingerprint() == model.fingerprint()
    assert (again.encode_images(shown) == model.encode_images(shown)).all()


def naflex_recipe(pair, photos, **sections):
    whole = {"crop": [1, 1], "flip": 0}
    raw = tiny.raw_recipe(photos, tiny.ALIGN | {"epochs": 2}, tiny.SHARPEN | {"losses": {"image_text": 1.0}})
    raw |= {"model": {"pair": str(pair)}, "data": {"root": str(photos)}, "views": {"image": whole}} | sections
    return tiny.make_recipe(raw)


def test_a_naflex_pair_is_tuned_on_whole_pictures(pairs, photos, tmp_path):
    """A step sees what the index sees: the loss of the first batch is that of vectors made in evaluation."""
    recipe = naflex_recipe(pairs("naflex"), photos, train={"batch_size": 8, "precision": "fp32"})
    train(recipe, tmp_path / "run")
    before, after = TwoTower.load(pairs("naflex")), TwoTower.load(tmp_path / "run" / "last")
    assert isinstance(after.picture_rules.resize, PatchCanvas)
    weights = after.image.backbone.state_dict()
    moved = [name for name, old in before.image.backbone.state_dict().items() if not weights[name].equal(old)]
    assert any("encoder" in name for name in moved)
    shown = np.stack(
        [
            load_square(path, after.picture_rules.side, after.picture_rules.resize)
            for path in sorted(photos.rglob("*.png"))[:3]
        ]
    )
    pixels = torch.from_numpy(shown)
    batch = SimpleNamespace(image_views=(None,), image_ids=torch.arange(3), pixels=(pixels,))
    with torch.no_grad():
        features = image_features(after, batch, slice(1, 3), recipe.stages[0].losses)
    np.testing.assert_allclose(features.cross[:, 0], after.encode_pixels(shown[1:]), atol=1e-6)


@pytest.mark.parametrize(
    "sections",
    [
        {"views": {}},
        {"views": {"image": {"crop": [1, 1], "flip": 0, "size": 0.5}}},
        {"data_cache": 64},
    ],
)
def test_a_naflex_pair_sees_no_other_views(pairs, photos, tmp_path, sections):
    if "data_cache" in sections:
        sections = {"data": {"root": str(photos), "cache_size": sections["data_cache"]}}
    recipe = naflex_recipe(pairs("naflex"), photos, **sections)
    with pytest.raises(RecipeError, match=r"\(NaFlex\) and is trained on whole ones: set views\.image"):
        train(recipe, tmp_path / "run")


def test_a_sigmoid_pair_keeps_its_bias_and_temperature_beyond_clips_bound(pairs):
    model = TwoTower.load(pairs("siglip"))
    assert model.bias is not None
    assert model.bias.item() == pytest.approx(-12.9)
    assert model.scale.item() == pytest.approx(math.exp(4.77), rel=1e-5)
    model.clamp_temperature()
    assert model.scale.item() == pytest.approx(math.exp(4.77), rel=1e-5)
    assert model.objective == "sigmoid"
    assert TwoTower.load(pairs("clip")).objective == "infonce"


def test_equal_pairs_have_equal_fingerprints_wherever_they_are(pairs, tmp_path):
    shutil.copytree(pairs("clip"), tmp_path / "copy")
    model = TwoTower.load(tmp_path / "copy")
    assert model.fingerprint() == TwoTower.load(pairs("clip")).fingerprint()
    settings = json.loads((tmp_path / "copy" / "preprocessor_config.json").read_text())
    settings["image_mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "copy" / "preprocessor_config.json").write_text(json.dumps(settings))
    assert TwoTower.load(tmp_path / "copy").fingerprint() != model.fingerprint()


def test_how_a_pair_prepares_is_told(pairs):
    pictures, texts = TwoTower.load(pairs("clip")).preparation()
    assert "shorter edge resized to 40 px (bicubic), of that the middle 32" in pictures
    assert "mean 0.4815 0.4578 0.4082" in pictures
    assert "77 tokens" in texts
    assert "all padded to 20 tokens" in TwoTower.load(pairs("siglip")).preparation()[1]


@pytest.mark.parametrize("family", ["clip", "siglip-open_clip"])
def test_a_name_in_the_hubs_cache_works_offline(family, pairs, tmp_path, monkeypatch):
    into_cache(pairs(family), tmp_path, "openai/some-clip")
    for module in ("huggingface_hub.constants", "transformers.utils.hub", "huggingface_hub.file_download"):
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.setattr(f"{module}.{name}", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = TwoTower.load("openai/some-clip")
    assert model.fingerprint() == TwoTower.load(pairs(family)).fingerprint()
    assert str(model.config.pair) == "openai/some-clip"
    with pytest.raises(CheckpointError, match=r"openai/other: no such folder, not in the Hugging Face cache"):
        TwoTower.load("openai/other")


def test_a_pair_trains_and_its_run_is_a_model(pairs, photos, tmp_path):
    from unicross.training import train

    raw = tiny.raw_recipe(photos, tiny.ALIGN)
    raw["model"] = {"pair": str(pairs("clip")), "uni_heads": "shared"}
    raw["data"] = {"root": str(photos)}
    recipe = tiny.make_recipe(raw)
    before = TwoTower.load(pairs("clip"))
    heard = []
    train(recipe, tmp_path / "run", listener=heard.append)
    model = TwoTower.load(tmp_path / "run")
    assert model.max_tokens == 77
    assert isinstance(model.picture_rules.resize, ExactResize)
    last = TwoTower.load(tmp_path / "run" / "last")  # the best may be the pair as it was
    same = [torch.equal(a, b) for a, b in zip(before.parameters(), last.parameters(), strict=True)]
    assert not all(same)
    (start,) = [event for event in heard if event["kind"] == "start"]
    assert "shorter edge" in start["preparation"][0]


@pytest.mark.parametrize("family", ALL)
def test_every_family_trains(family, pairs, photos, tmp_path):
    from unicross.training import train

    raw = tiny.raw_recipe(photos, tiny.ALIGN | {"fit_heads": True})  # its heads, or that of its texts
    raw["model"] = {"pair": str(pairs(family))}
    raw["data"] = {"root": str(photos)}
    train(tiny.make_recipe(raw), tmp_path / "run")
    assert TwoTower.load(tmp_path / "run").encode_texts(TEXTS).shape[0] == len(TEXTS)


def test_what_a_pair_has_is_not_said_again(pairs):
    with pytest.raises(ValueError, match="a pair has its own dim, text_pool: leave them out"):
        ModelConfig(pair="x", dim=3, text_pool="cls")
    with pytest.raises(ValueError, match="give image and text, or a pair"):
        ModelConfig(image=tiny.VIT)
    with pytest.raises(RecipeError, match="reads 77 tokens of a text at most"):
        TwoTower.create(ModelConfig(pair=str(pairs("clip"))), max_tokens=78)
    assert ModelConfig.model_validate(ModelConfig(pair="x").model_dump()) == ModelConfig(pair="x")


# -- wrong input ------------------------------------------------------------------------------------


@pytest.fixture
def copied(pairs, tmp_path):
    shutil.copytree(pairs("clip"), tmp_path / "pair")
    return tmp_path / "pair"


def refused(folder):
    with pytest.raises(CheckpointError) as caught:
        TwoTower.load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_text_model_is_no_pair(tmp_path):
    BertModel(BertConfig(**tiny.SMALL, vocab_size=50)).save_pretrained(tmp_path)
    assert "'bert' is no pair of an image and a text tower: give it as model.image or model.text" in refused(
        tmp_path
    )


def test_weights_that_do_not_fit_are_named(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 48
    (copied / "config.json").write_text(json.dumps(config))
    assert "do not fit its config.json: text_model.encoder.layers.0.mlp.fc1.bias is [64]" in refused(copied)
    config["text_config"].update(intermediate_size=64, num_hidden_layers=3)
    (copied / "config.json").write_text(json.dumps(config))
    assert "16 of the " in refused(copied)


def test_models_that_bring_code_are_refused(copied):
    config = json.loads((copied / "config.json").read_text())
    config |= {"model_type": "jina_clip", "auto_map": {"AutoModel": "evil.Model"}}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "evil.py").write_text(f"open({str(copied / 'ran')!r}, 'w')")
    assert "brings Python code of its own (model_type 'jina_clip'), which is never run" in refused(copied)
    assert not (copied / "ran").exists()


def test_a_half_fetched_folder(copied):
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "damaged or only partly there" in refused(copied)
    (copied / "model.safetensors").unlink()
    assert "there is no model.safetensors in the folder" in refused(copied)
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert "2 of its 2 files are not there" in refused(copied)


def test_pickled_weights_alone_say_how_to_convert(copied):
    os.rename(copied / "model.safetensors", copied / "pytorch_model.bin")
    message = refused(copied)
    assert "only pickled ones are there (pytorch_model.bin)" in message
    assert "save_file(" in message


def test_pairs_without_processor_files(copied):
    (copied / "preprocessor_config.json").unlink()
    assert "nobody knows how its pictures are prepared" in refused(copied)


def test_a_folder_of_nothing(tmp_path):
    assert "not a checkpoint (no model.json in it)" in refused(tmp_path)


def test_a_configuration_chooses_no_kernels(copied):
    config = json.loads((copied / "config.json").read_text())
    config["attn_implementation"] = config["_attn_implementation"] = "someone/evil-kernels"
    config["text_config"]["attn_implementation"] = "someone/evil-kernels"
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copied / "config.json").write_text(json.dumps(config))
    model = TwoTower.load(copied)
    for tower in (model.image, model.text):
        assert tower.backbone.config._attn_implementation == "sdpa"
    assert model.image.cross.weight.dtype == torch.float32
