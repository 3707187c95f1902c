"""Encoders from Hugging Face folders, hub names or small configurations, ready to be towers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from unicross.errors import CheckpointError, RecipeError
from unicross.model.weights import build, load, read_config

Source = str | dict[str, Any]

LAYER = re.compile(r"(?:.*\.)?layers?\.(\d+)")
"""Names of an encoder's layers in Hugging Face models: `encoder.layer.3`, `layers.3`."""
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NO_TOWERS = {
    "siglip2_vision_model": "sees patches in the pictures' own proportions (NaFlex), which is not "
    "supported: take a "
    "SigLIP 2 of a fixed size, such as google/siglip2-base-patch16-224",
}
"""Kinds that transformers makes, that are refused as towers, and why."""


def image_backbone(source: Source, image_size: int) -> PreTrainedModel:
    """A vision encoder that takes [B, 3, image_size, image_size]; position embeddings are interpolated.

    Raises CheckpointError where `source` cannot be loaded, RecipeError where it makes no model.
    """
    config = _config(source, "vision_config")
    if isinstance(source, dict):
        config.image_size = image_size
        return build(config)
    _refuse(source, config)
    backbone = load(source, config)
    old_size = getattr(config, "image_size", image_size)
    if old_size == image_size or not isinstance(getattr(config, "patch_size", None), int):
        return backbone
    weights = backbone.state_dict()
    config.image_size = image_size
    try:
        resized = build(config)
        if backbone.__dict__.get("pooler", False) is None:
            resized.pooler = None
        for name, target in resized.state_dict().items():
            if name in weights and weights[name].shape != target.shape and "position" in name:
                weights[name] = resize_positions(weights[name], old_size // config.patch_size, target)
        resized.load_state_dict(
            {name: weights.get(name, like) for name, like in resized.state_dict().items()}
        )
    except (RuntimeError, KeyError) as error:  # tables of relative positions, and whatever else has a size
        raise RecipeError(
            f"{source}: this encoder cannot see {image_size} pixels: set model.image_size={old_size}"
        ) from error
    return resized


def text_backbone(source: Source, vocabulary: int | None = None) -> PreTrainedModel:
    """A text encoder. `vocabulary` sets the embedding rows of one with random weights."""
    config = _config(source, "text_config")
    if isinstance(source, dict):
        config.vocab_size = vocabulary or config.vocab_size
        config.pad_token_id = SPECIAL_TOKENS.index("[PAD]")
        return build(config)
    _refuse(source, config)
    return load(source, config)


def backbone_from_folder(folder: Path) -> PreTrainedModel:
    """An encoder with unset weights from the `config.json` in `folder`. Raises CheckpointError,
    RecipeError."""
    return build(read_config(folder))


def resize_positions(weights: Tensor, old_grid: int, like: Tensor) -> Tensor:
    """Interpolate learned position embeddings (bicubic) to the shape of `like`; class tokens stay.

    `weights` is [1, prefix + old_grid**2, D] or without the leading 1.
    """
    width = weights.shape[-1]
    rows = weights.reshape(-1, width).float()
    prefix = len(rows) - old_grid**2
    new_grid = round((like.numel() // width - prefix) ** 0.5)
    grid = rows[prefix:].reshape(1, old_grid, old_grid, width).permute(0, 3, 1, 2)  # [1, D, g, g]
    grid = F.interpolate(grid, (new_grid, new_grid), mode="bicubic", antialias=True, align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(-1, width)
    return torch.cat([rows[:prefix], grid]).reshape(like.shape).to(weights.dtype)


def embeddings_of(backbone: nn.Module) -> nn.Module:
    """The part of an encoder that comes before its layers. Raises ValueError where none is found."""
    (found,) = (m for name, m in backbone.named_modules() if name.rpartition(".")[2] == "embeddings")
    return found


def _config(source: Source, part: str) -> PreTrainedConfig:
    """The configuration of `source`, or of its `part` where it is a two-tower model itself (CLIP, SigLIP)."""
    if isinstance(source, str):
        config = read_config(source)
        return getattr(config, part, config)
    kind = source.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise RecipeError(
            f"a tower given as a configuration needs a known model_type (vit, bert, ...), got {kind!r}"
        )
    values = {key: value for key, value in source.items() if key != "model_type"}
    unknown = [key for key in values if not hasattr(CONFIG_MAPPING[kind](), key)]
    if unknown:
        raise RecipeError(f"a configuration of model_type {kind!r} has no {', '.join(unknown)}")
    try:
        config = CONFIG_MAPPING[kind](**values)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise RecipeError(f"model_type {kind!r}: {' '.join(str(error).split())}") from error
    return getattr(config, part, config)


def _refuse(source: str, config: PreTrainedConfig) -> None:
    if config.model_type in NO_TOWERS:
        raise CheckpointError(f"{source}: model_type {config.model_type!r} {NO_TOWERS[config.model_type]}")
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(
            f"{source}: model_type {config.model_type!r} is an encoder with a decoder, which makes no "
            f"tower: take an "
            "encoder alone, such as a BERT"
        )
