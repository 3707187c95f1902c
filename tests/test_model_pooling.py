"""What an encoder is asked for suits it: the default pooling, and the ones that are refused; one vector a
text."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

import tiny
from pretrained import HALF, TEXTS, VISION, clip_tokenizer, word_tokenizer
from unicross.data.items import strings
from unicross.data.tokens import TokenizedTexts
from unicross.errors import CheckpointError, RecipeError
from unicross.model import TwoTower
from unicross.model.weights import build

TEXT = HALF | {"vocab_size": 200, "max_position_embeddings": 64}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER = HALF | {"vocab_size": 200, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0}
SMALL_VISION = tiny.SMALL | {"image_size": 32, "patch_size": 8}
TOWERS = {
    "bert": (TEXT, "mean"),
    "clip_text_model": (TEXT | ENDS, "pooler"),
    "siglip_text_model": (TEXT | ENDS | {"projection_size": 32}, "pooler"),
    "blip_text_model": (TEXT | ENDS, "pooler"),
    "chinese_clip_text_model": (TEXT, "cls"),
    "metaclip_2_text_model": (TEXT | ENDS, "pooler"),
    "align_text_model": (TEXT, "cls"),
    "qwen3": (DECODER, "last"),
    "gemma3_text": (DECODER, "last"),
}
PICTURES = {
    "vit": (VISION, "cls"),
    "clip_vision_model": (VISION, "pooler"),
    "siglip_vision_model": (SMALL_VISION, "pooler"),
    "convnext": ({"depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2}, "pooler"),
    "resnet": ({"depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}, "pooler"),
    "swin": (
        {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]},
        "pooler",
    ),
}


def text_tower(folder, kind, **tokens):
    build(AutoConfig.for_model(kind, **TOWERS[kind][0])).save_pretrained(folder)
    word_tokenizer(**tokens).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", TOWERS)
def test_a_text_has_one_vector_alone_and_among_others(kind, side, tmp_path):
    model = tiny.model(text=text_tower(tmp_path, kind, padding_side=side), text_prefix="")
    assert model.text.pool == TOWERS[kind][1]
    together = model.encode_texts(TEXTS)
    alone = np.concatenate([model.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
    assert abs(together[0] - together[1]).max() > 1e-3
    with torch.no_grad():  # as training encodes them
        tokens = TokenizedTexts(strings(TEXTS), model.tokenizer, model.max_tokens, model.text_rules)
        tokens = tokens.tokens(np.arange(len(TEXTS)))
        trained = model.text.embed(model.text.encode(tokens)).numpy()
    np.testing.assert_allclose(trained, together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", PICTURES)
def test_image_towers_pool_as_suits_them(kind, tmp_path):
    config, pool = PICTURES[kind]
    model = tiny.model(image={"model_type": kind} | config, image_pool=None)
    assert model.image.pool == pool
    found = model.encode_pixels(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    assert abs(found[0] - found[1]).max() > 1e-6
    model.save(tmp_path)
    assert TwoTower.load(tmp_path).fingerprint() == model.fingerprint()


CLIP_TEXT = {"model_type": "clip_text_model"} | TEXT | ENDS
CLIP_VISION = {"model_type": "clip_vision_model"} | VISION
SIGLIP_VISION = {"model_type": "siglip_vision_model"} | SMALL_VISION
SENSELESS = [
    ({"text": CLIP_TEXT, "text_pool": "cls"}, "gives all texts one vector"),
    ({"text": {"model_type": "qwen3"} | DECODER, "text_pool": "cls"}, "gives all texts one vector"),
    ({"image": CLIP_VISION, "image_pool": "cls"}, "would skip its last layers"),
    ({"image": SIGLIP_VISION, "image_pool": "cls"}, "would skip its last layers"),
    ({"image": {"model_type": "swin"} | PICTURES["swin"][0], "image_pool": "cls"}, "no tokens of patches"),
    ({"image": {"model_type": "swin"} | PICTURES["swin"][0], "image_pool": "layers"}, "no tokens of patches"),
    ({"image_pool": "last"}, "image_pool=last makes no sense"),
    ({"text_pool": "layers"}, "text_pool=layers is for pictures"),
    ({"text": {"model_type": "distilbert"} | tiny.DISTIL, "text_pool": "pooler"}, "has no pooled output"),
]


@pytest.mark.parametrize(("towers", "message"), SENSELESS)
def test_a_senseless_pooling_is_refused(towers, message):
    with pytest.raises(RecipeError, match=message):
        tiny.model(**towers)


def test_encoders_with_decoders_and_naflex_are_told_apart(tmp_path):
    t5 = AutoConfig.for_model("t5", d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=60)
    AutoModel.from_config(t5).save_pretrained(tmp_path / "t5")
    word_tokenizer().save_pretrained(tmp_path / "t5")
    with pytest.raises(CheckpointError, match="'t5' is an encoder with a decoder"):
        tiny.model(text=str(tmp_path / "t5"))
    naflex = AutoConfig.for_model("siglip2_vision_model", **HALF)
    AutoModel.from_config(naflex).save_pretrained(tmp_path / "naflex")
    with pytest.raises(CheckpointError, match=r"NaFlex.*take a SigLIP 2 of a fixed size"):
        tiny.model(image=str(tmp_path / "naflex"))


def test_a_prefix_is_before_every_text(tmp_path):
    plain = tiny.model(text=text_tower(tmp_path, "bert"))
    torch.manual_seed(0)
    prefixed = tiny.model(text=str(tmp_path), text_prefix="two dogs ")
    prefixed.load_state_dict(plain.state_dict())
    np.testing.assert_allclose(
        prefixed.encode_texts(["block"]), plain.encode_texts(["two dogs block"]), rtol=0, atol=1e-6
    )
    (tmp_path / "saved").mkdir()
    prefixed.save(tmp_path / "saved")
    loaded = TwoTower.load(tmp_path / "saved")
    assert (loaded.encode_texts(["block"]) == prefixed.encode_texts(["block"])).all()
    assert loaded.fingerprint() != plain.fingerprint()


def test_clips_own_tokenizer_ends_what_it_cuts():
    tokenizer = clip_tokenizer()
    ids = tokenizer("a red square " * 60, truncation=True, max_length=77)["input_ids"]
    assert len(ids) == 77
    assert ids[-1] == tokenizer.eos_token_id
