"""What a model is made of: from two towers, from a pretrained pair, or from a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unicross.config import ModelConfig
from unicross.data.preparation import ExactResize, PatchCanvas, PictureRules, TextRules
from unicross.errors import CheckpointError, RecipeError
from unicross.losses import Objective
from unicross.model.backbones import backbone_from_folder, image_backbone, text_backbone
from unicross.model.hub import require_source
from unicross.model.hubness import HUBNESS, HubnessCorrection
from unicross.model.kernels import patches_as_products
from unicross.model.limits import LARGEST, check_fits, check_weights
from unicross.model.pair_sources import load_pair
from unicross.model.pairs import SEES_PADDING, pop_head
from unicross.model.pooling import fit_image, fit_text
from unicross.model.processors import mean_std
from unicross.model.tokenizer import check_vocabulary, load_tokenizer, train_tokenizer
from unicross.model.tower import Tower
from unicross.model.weights import model_class, read_config
from unicross.reading import read_text

WEIGHTS, SETTINGS = "model.safetensors", "model.json"
MAX_SCALE = 100.0
"""Largest 1 / temperature (Radford et al. 2021)."""
MAX_TOKENS = 40
"""Of a text, where a recipe does not say."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation for towers with random weights, to which all are alike."""
BELONGS_TO_WEIGHTS = ("pair", "image", "text", "dim", "image_pool", "text_pool", "uni_heads", "uni_dim")
"""What weights belong to, of a `ModelConfig`."""


@dataclass(frozen=True)
class Parts:
    """What a `TwoTower` is made of."""

    config: ModelConfig
    """With what pair or towers bring: size of pictures, pooling, dimensions."""
    image: Tower
    text: Tower
    tokenizer: PreTrainedTokenizerFast
    max_tokens: int
    pictures: PictureRules
    texts: TextRules
    log_scale: float
    bias: float | None = None
    objective: Objective = "infonce"
    max_scale: float = MAX_SCALE
    hubness: HubnessCorrection | None = None


def from_config(config: ModelConfig, max_tokens: int | None, captions: Iterable[str]) -> Parts:
    """Towers as the configuration names them; `captions` train the tokenizer of a random text tower.

    Raises CheckpointError where a tower or pair cannot be loaded, RecipeError for one that cannot be built.
    """
    return (
        _from_pair(config, max_tokens)
        if config.pair is not None
        else _from_towers(config, max_tokens, captions)
    )


def _from_towers(config: ModelConfig, max_tokens: int | None, captions: Iterable[str]) -> Parts:
    assert config.image is not None
    assert config.text is not None
    for source in (config.image, config.text):
        if isinstance(source, str):
            require_source(source)
    if isinstance(config.text, dict):
        tokenizer = train_tokenizer(captions, config.text.get("vocab_size", 8192))
    else:
        tokenizer = load_tokenizer(config.text)
    image = image_backbone(config.image, config.image_size)
    text = text_backbone(config.text, len(tokenizer))
    check_vocabulary(str(config.text), tokenizer, text)
    mean, std = _mean_std(config)
    fixed = text.config.max_position_embeddings if text.config.model_type in SEES_PADDING else None
    return _assembled(
        config,
        (image, text),
        tokenizer,
        min(max_tokens or MAX_TOKENS, fixed or max_tokens or MAX_TOKENS),
        PictureRules(config.image_size, config.resize, mean, std),
        TextRules(config.text_prefix, fixed),
    )


def _from_pair(config: ModelConfig, max_tokens: int | None) -> Parts:
    assert config.pair is not None
    pair = load_pair(config.pair)
    if max_tokens is not None and max_tokens > pair.max_tokens:
        raise RecipeError(
            f"{config.pair} reads {pair.max_tokens} tokens of a text at most: lower data.max_tokens, or "
            f"leave it out"
        )
    resolved = config.model_copy(update={"image_pool": pair.image_pool, "text_pool": pair.text_pool})
    parts = _assembled(
        resolved,
        (pair.image, pair.text),
        pair.tokenizer,
        max_tokens or pair.max_tokens,
        pair.pictures,
        dataclasses.replace(pair.texts, prefix=config.text_prefix),
        heads=(pair.image_head, pair.text_head),
    )
    # A sigmoid loss bounds no temperature: SigLIP's 1 / temperature is 117
    scale = math.inf if pair.bias is not None or pair.log_scale > math.log(MAX_SCALE * 1.001) else MAX_SCALE
    return dataclasses.replace(
        parts,
        log_scale=pair.log_scale,
        bias=config.bias if pair.bias is None else pair.bias,
        objective="infonce" if pair.bias is None else "sigmoid",
        max_scale=scale,
    )


def from_checkpoint(
    folder: Path, config: ModelConfig | None, max_tokens: int | None
) -> tuple[Parts, dict[str, Tensor]]:
    """What `TwoTower.save` wrote, and the weights. `config` and `max_tokens` replace the checkpoint's own.

    Raises CheckpointError where `config` has other towers or heads, and nearly anything where it cannot be
    read.
    """
    settings = json.loads(read_text(folder / SETTINGS))
    saved = ModelConfig.model_validate(settings["model"])
    _check_sizes(folder, saved)
    weights = load_file(folder / WEIGHTS)
    hubness = HubnessCorrection(*(weights[name] for name in HUBNESS)) if HUBNESS[0] in weights else None
    if config is not None:
        hubness, weights = None, {name: tensor for name, tensor in weights.items() if name not in HUBNESS}
        _check_fits(folder, saved, config)
    pictures = _pictures(settings, config if config is not None and config.pair is None else saved)
    texts = TextRules(**settings.get("texts", {}))
    if config is not None and config.text_prefix:
        texts = dataclasses.replace(texts, prefix=config.text_prefix)
    text, tokenizer = backbone_from_folder(folder / "text"), load_tokenizer(folder / "text")
    if saved.pair is not None and "text.cross.weight" in weights:
        pop_head(text)
    check_vocabulary(str(folder), tokenizer, text)
    pools = {key: settings.get(key) or getattr(saved, key) for key in ("image_pool", "text_pool")}
    parts = _assembled(
        (config or saved).model_copy(update=pools),
        (backbone_from_folder(folder / "image"), text),
        tokenizer,
        max_tokens or settings["max_tokens"],
        pictures,
        texts,
        heads=(None, None) if saved.pair is None else (_head(weights, "image"), _head(weights, "text")),
    )
    if hubness is not None and any(table.shape[1] != parts.config.dim for table in hubness.samples):
        raise ValueError(f"its correction of hubness is not of vectors with {parts.config.dim} numbers")
    bias = float(weights["bias"]) if "bias" in weights else None
    scale = settings.get("max_scale", MAX_SCALE)
    parts = dataclasses.replace(
        parts,
        bias=bias,
        objective=settings.get("objective", "infonce"),
        max_scale=math.inf if scale is None else scale,
        hubness=hubness,
    )
    return parts, weights


def _check_sizes(folder: Path, saved: ModelConfig) -> None:
    """Raise CheckpointError where building the model would take what its weights do not have."""
    shapes = check_weights(folder / WEIGHTS)
    for half in ("image", "text"):
        config = read_config(folder / half)
        check_fits(folder, lambda config=config: model_class(config)(config), shapes)  # type: ignore[misc]
    sizes = {"dim": saved.dim, "uni_dim": saved.uni_dim, "image_size": saved.image_size}
    for name, size in sizes.items():
        if size is not None and not 0 < size <= LARGEST["hidden_size"]:
            raise CheckpointError(
                f"{folder / SETTINGS}: {name} of {size} is no size of a model: it is damaged"
            )


def _assembled(
    config: ModelConfig,
    backbones: tuple[PreTrainedModel, PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    max_tokens: int,
    pictures: PictureRules,
    texts: TextRules,
    heads: tuple[nn.Module | None, nn.Module | None] = (None, None),
) -> Parts:
    image, text = backbones
    own_side = getattr(image.config, "image_size", None)  # others have its positions interpolated
    of_image = fit_image(image, config.image_pool, own_side if isinstance(own_side, int) else pictures.side)
    patches_as_products(image)  # after the try, in which a convolution refuses too large patches
    image_tower = Tower(image, of_image, config, heads[0])
    of_text = fit_text(text, config.text_pool, texts.pad_to or max_tokens)
    text_tower = Tower(text, of_text, config, heads[1])
    brought = {
        "dim": image_tower.dim,
        "image_size": pictures.side,
        "image_pool": of_image.pool,
        "text_pool": of_text.pool,
    }
    return Parts(
        config.model_copy(update=brought),
        image_tower,
        text_tower,
        tokenizer,
        max_tokens,
        pictures,
        texts,
        -math.log(config.temperature),
        config.bias,
    )


def _mean_std(config: ModelConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    if isinstance(config.image, dict):
        return IMAGENET
    assert config.image is not None
    own = mean_std(config.image)
    if own is None:
        raise RecipeError(
            f"{config.image}: no processor file says with which mean and deviation of the channels this "
            f"tower was "
            "trained: give both, for instance those of ImageNet: model.mean=[0.485,0.456,0.406] "
            "model.std=[0.229,0.224,0.225], or [0.5,0.5,0.5] twice as many ViTs have it"
        )
    return own


def _head(weights: Mapping[str, Tensor], tower: str) -> nn.Module:
    """An empty head like the one whose weights these are."""
    weight = weights.get(f"{tower}.cross.weight")
    if weight is None:
        return nn.Identity()
    return nn.Linear(weight.shape[1], weight.shape[0], bias=f"{tower}.cross.bias" in weights)


def _pictures(settings: Mapping[str, Any], config: ModelConfig) -> PictureRules:
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    if config.pair is None:
        return PictureRules(config.image_size, config.resize, config.mean or mean, config.std or std)
    kind = PatchCanvas if "most" in settings["resize"] else ExactResize
    return PictureRules(settings["side"], kind(**settings["resize"]), mean, std)


def _check_fits(folder: Path, saved: ModelConfig, config: ModelConfig) -> None:
    differing = [
        f"model.{key} is {getattr(saved, key)!r} there, {getattr(config, key)!r} here"
        for key in BELONGS_TO_WEIGHTS
        if getattr(config, key)
        not in (getattr(saved, key), None if key.endswith("pool") else getattr(saved, key))
    ]
    if differing:
        raise CheckpointError(
            f"{folder}: its weights need the model that they are of: {'; '.join(differing)}"
        )
