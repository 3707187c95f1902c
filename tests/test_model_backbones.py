"""Encoders made ready to be towers: every kind, every size, nothing but weights and JSON."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel

import tiny
from tiny import DISTIL, SMALL
from unicross.errors import RecipeError
from unicross.model import TwoTower
from unicross.model.backbones import (
    LAYER,
    image_backbone,
    resize_positions,
    text_backbone,
)
from unicross.model.processors import mean_std
from unicross.model.tokenizer import load_tokenizer, train_tokenizer

DINO = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "patch_size": 8,
}
IMAGES = {
    "vit": SMALL | {"patch_size": 8},
    "deit": SMALL | {"patch_size": 8},
    "clip_vision_model": SMALL | {"patch_size": 8},
    "dinov2": DINO,
    "dinov2_with_registers": DINO,
}
TEXTS = {
    "bert": SMALL,
    "roberta": SMALL,
    "distilbert": DISTIL,
}
CAPTIONS = ("a red square on the left", "a blue block at the top of a grey ground")


def whole(image="vit", text="bert", **changes):
    towers = {"image": {"model_type": image} | IMAGES[image], "text": {"model_type": text} | TEXTS[text]}
    return tiny.model(CAPTIONS, **towers | changes)


def pixels(count=2, side=32):
    return (
        torch.randint(0, 256, (count, side, side, 3), generator=torch.Generator().manual_seed(0))
        .byte()
        .numpy()
    )


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("pool", [None, "mean", "layers"])
def test_image_towers_of_every_kind_embed_and_come_back(kind, pool, tmp_path):
    model = whole(image=kind, image_pool=pool)
    found = model.encode_pixels(pixels())
    assert found.shape == (2, 16)
    model.save(tmp_path)
    assert (TwoTower.load(tmp_path).encode_pixels(pixels()) == found).all()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_text_towers_of_every_kind_embed_and_come_back(kind, pool, tmp_path):
    model = whole(text=kind, text_pool=pool)
    found = model.encode_texts(CAPTIONS)
    assert found.shape == (2, 16)
    assert abs(found[0] - found[1]).max() > 1e-3
    model.save(tmp_path)
    assert (TwoTower.load(tmp_path).encode_texts(CAPTIONS) == found).all()


@pytest.mark.parametrize(
    ("kind", "prefix"), [("vit", 1), ("deit", 2), ("clip_vision_model", 1), ("dinov2_with_registers", 5)]
)
def test_a_mean_leaves_out_the_tokens_that_are_no_patches(kind, prefix):
    model = whole(image=kind, image_pool="mean")
    assert model.image.prefix == prefix
    shown = torch.rand(2, 3, 32, 32)
    hidden = model.image.backbone(pixel_values=shown).last_hidden_state
    assert hidden.shape[1] == prefix + 16
    torch.testing.assert_close(model.image(pixel_values=shown), hidden[:, prefix:].mean(1))


@pytest.mark.parametrize(("kind", "prefix"), [("vit", 1), ("deit", 2)])
@torch.no_grad()
def test_pooled_layers_are_the_last_ones_each_with_its_own_tokens(kind, prefix):
    tower = whole(image=kind, image_pool="layers").image.eval()
    assert (tower.prefix, tower.cross.in_features) == (prefix, 2 * 2 * 32)
    shown = torch.rand(2, 3, 32, 32)
    seen = tower.backbone(pixel_values=shown, output_hidden_states=True)
    first = torch.nn.functional.layer_norm(seen.hidden_states[1], (32,))
    both = [first, seen.last_hidden_state]
    expected = [part for hidden in both for part in (hidden[:, 0], hidden[:, prefix:].mean(1))]
    torch.testing.assert_close(tower(pixel_values=shown), torch.cat(expected, dim=1))


@pytest.mark.parametrize("kind", IMAGES)
@torch.no_grad()
def test_dropped_patches_do_not_pass_the_layers(kind):
    tower = whole(image=kind, image_pool="mean").image.eval()
    shown = torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1)
    layer = next(module for name, module in tower.backbone.named_modules() if LAYER.fullmatch(name))
    tokens = []
    layer.register_forward_pre_hook(lambda _, arguments: tokens.append(arguments[0].clone()))
    first, second = tower(pixel_values=shown, patch_dropout=0.75)
    assert not torch.allclose(first, second)  # of each picture others
    torch.testing.assert_close(*tower(pixel_values=shown))  # and the next time none
    few, all_tokens = tokens
    assert (few.shape[1], all_tokens.shape[1]) == (tower.prefix + 4, tower.prefix + 16)
    for kept, row in zip(few, all_tokens, strict=True):
        assert torch.equal(kept[: tower.prefix], row[: tower.prefix])
        same = (kept[tower.prefix :, None] == row[tower.prefix :]).all(-1)  # [4, 16]
        assert same.sum(1).tolist() == [1] * 4  # with the positions that they had


@pytest.mark.parametrize("kind", ["vit", "clip_vision_model", "dinov2"])
def test_a_pooled_output_is_used_where_there_is_one(kind):
    model = whole(image=kind, image_pool="pooler")
    shown = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(
        model.image(pixel_values=shown), model.image.backbone(pixel_values=shown).pooler_output
    )


def test_poolers_that_are_not_used_are_not_kept():
    assert not [name for name, _ in whole().named_parameters() if "pooler" in name]
    assert [
        name for name, _ in whole(text_pool="pooler").named_parameters() if "text.backbone.pooler" in name
    ]


def test_a_pooled_output_that_is_not_there_is_refused():
    with pytest.raises(
        RecipeError, match="'distilbert' has no pooled output: set its pooling to cls or mean"
    ):
        whole(text="distilbert", text_pool="pooler")


# -- sizes ------------------------------------------------------------------------------------------


def test_positions_of_the_same_grid_stay_as_they_are():
    weights = torch.randn(1, 1 + 16, 4)
    assert torch.equal(resize_positions(weights, 4, torch.empty(1, 17, 4)), weights)


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("shape", ["batched", "flat"])
def test_prefix_positions_are_kept_and_the_grid_is_resized(prefix, shape):
    """A grid that rises evenly from left to right still does; every row of it alike."""
    ramp = torch.linspace(0, 1, 4).expand(4, 4).reshape(16, 1).expand(16, 3)
    rows = torch.cat([torch.full((prefix, 3), 9.0), ramp])
    like = torch.empty(prefix + 36, 3)
    if shape == "batched":
        rows, like = rows[None], like[None]
    found = resize_positions(rows, 4, like)
    assert found.shape == like.shape
    found = found.reshape(-1, 3)
    assert (found[:prefix] == 9).all()
    grid = found[prefix:, 0].reshape(6, 6)
    torch.testing.assert_close(grid, grid[:1].expand(6, 6))
    assert (grid[0].diff() > 0.1).all()
    assert grid.mean().item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("kind", ["vit", "clip_vision_model", "dinov2"])
def test_pretrained_encoders_take_other_sizes(kind, tmp_path):
    config = AutoConfig.for_model(kind, **IMAGES[kind], image_size=32)
    original = AutoModel.from_config(config)
    original.save_pretrained(tmp_path)
    same, larger = image_backbone(str(tmp_path), 32), image_backbone(str(tmp_path), 48)
    shown = torch.rand(1, 3, 32, 32)
    original.eval(), same.eval()
    torch.testing.assert_close(
        same(pixel_values=shown).last_hidden_state, original(pixel_values=shown).last_hidden_state
    )
    assert larger(pixel_values=torch.rand(1, 3, 48, 48)).last_hidden_state.shape == (1, 37, 32)
    assert larger.config.image_size == 48
    kept, resized = original.state_dict(), larger.state_dict()
    changed = [name for name in kept if not torch.equal(kept[name], resized[name])]
    assert len(changed) == 1
    assert "position" in changed[0]


def test_an_encoder_of_one_size_only_says_which(tmp_path):
    beit = AutoConfig.for_model(
        "beit", **SMALL, image_size=32, patch_size=8, use_relative_position_bias=True, out_indices=[1]
    )
    AutoModel.from_config(beit).save_pretrained(tmp_path)
    assert image_backbone(str(tmp_path), 32).config.image_size == 32
    with pytest.raises(RecipeError, match=r"cannot see 48 pixels: set model\.image_size=32"):
        image_backbone(str(tmp_path), 48)


def test_the_image_part_of_a_two_tower_model_is_taken(tmp_path):
    clip = AutoConfig.for_model(
        "clip",
        vision_config=SMALL | {"image_size": 32, "patch_size": 8},
        text_config=SMALL | {"vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        projection_dim=8,
    )
    AutoModel.from_config(clip).save_pretrained(tmp_path)
    assert image_backbone(str(tmp_path), 32).config.model_type == "clip_vision_model"
    assert text_backbone(str(tmp_path)).config.model_type == "clip_text_model"


# -- preprocessing and tokens -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_mean_and_deviation_are_read_from_either_file(name, tmp_path):
    assert mean_std(str(tmp_path)) is None
    (tmp_path / name).write_text(json.dumps({"size": 32}))
    assert mean_std(str(tmp_path)) is None
    own = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    (tmp_path / name).write_text(json.dumps({"image_processor": own} if name[:4] == "proc" else own))
    assert mean_std(str(tmp_path)) == ((0.5,) * 3, (0.2,) * 3)


def test_a_tower_of_unknown_mean_and_deviation_is_asked_for_them(tmp_path):
    vit = AutoConfig.for_model("vit", **IMAGES["vit"], image_size=32)
    AutoModel.from_config(vit).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"no processor file says .*: give both, .*model\.mean=\["):
        tiny.model(image=str(tmp_path))
    given = tiny.model(image=str(tmp_path), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert given.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert "mean 0.1 0.2 0.3, deviation 0.4 0.5 0.6" in given.preparation()[0]


def test_equal_captions_train_equal_tokenizers():
    captions = [
        f"a {a} {b} near the {c}" for a in ("red", "old") for b in ("dog", "dot") for c in ("sea", "tea")
    ]
    vocabularies = [train_tokenizer(captions, 45).get_vocab() for _ in range(5)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


def test_a_trained_tokenizer_frames_lowers_and_keeps_words(tmp_path):
    tokenizer = train_tokenizer(CAPTIONS, 200)
    ids = tokenizer("A RED block")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "[CLS]"
    assert tokenizer.convert_ids_to_tokens(ids)[-1] == "[SEP]"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a red block"
    assert tokenizer.pad_token_id == 0
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("a red block")["input_ids"] == ids
