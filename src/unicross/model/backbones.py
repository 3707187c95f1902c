"""Encoders from Hugging Face folders, hub names or small configurations, made ready to be towers.

Loading never runs code from a checkpoint: safetensors and JSON only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, StrictDataclassError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from unicross.errors import CheckpointError, RecipeError

Source = str | dict[str, Any]

LAYER = re.compile(r"(?:.*\.)?layers?\.(\d+)")
"""Names of an encoder's layers in Hugging Face models: `encoder.layer.3`, `layers.3`."""
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def require_source(source: Source) -> None:
    """Raise CheckpointError for a path that is not there, or a hub name where the hub cannot be reached.

    Loading would tell as much, but only after a minute of trying again.
    """
    if not isinstance(source, str) or Path(source).exists():
        return
    if source.startswith(("/", "./", "../", "~")):
        raise CheckpointError(f"{source}: no such folder: give one with a Hugging Face model, or a hub name")
    try:
        if not isinstance(try_to_load_from_cache(source, "config.json"), str):
            HfApi().model_info(source, timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return  # the hub answers: loading says what is wrong
    except Exception as error:  # whatever its transport raises
        raise CheckpointError(
            f"{source}: no such folder, not in the Hugging Face cache, and the hub cannot be reached "
            f"({first_line(error)}): give the folder of a model"
        ) from error


def image_backbone(source: Source, image_size: int) -> PreTrainedModel:
    """A vision encoder that takes [B, 3, image_size, image_size]; position embeddings are interpolated.

    Raises CheckpointError where `source` cannot be loaded, RecipeError where it makes no model.
    """
    config = _config(source, "vision_config")
    if isinstance(source, dict):
        config.image_size = image_size
        return _build(config)
    backbone = _load(source, config)
    if config.image_size == image_size:
        return backbone
    weights = backbone.state_dict()
    old_size, config.image_size = config.image_size, image_size
    try:
        resized = _build(config)
        for name, target in resized.state_dict().items():
            if weights[name].shape != target.shape and "position" in name:
                weights[name] = resize_positions(weights[name], old_size // config.patch_size, target)
        resized.load_state_dict(weights)
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
        return _build(config)
    return _load(source, config)


def backbone_from_folder(folder: Path) -> PreTrainedModel:
    """An encoder with unset weights from the `config.json` in `folder`."""
    return _build(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))


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


def mean_std(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel mean and deviation that the encoder expects: its preprocessor file's, or ImageNet's."""
    if isinstance(source, str):
        try:
            path = cached_file(
                source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
            )
        except OSError:
            path = None
        if path:
            config = json.loads(Path(path).read_text())
            if "image_mean" in config:
                return tuple(config["image_mean"]), tuple(config["image_std"])
    return IMAGENET_MEAN_STD


def _config(source: Source, part: str) -> PreTrainedConfig:
    """The configuration of `source`, or of its `part` where it is a two-tower model itself (CLIP, SigLIP)."""
    if isinstance(source, dict):
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
    else:
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{source}: neither a folder with a Hugging Face model nor a hub name that can be reached "
                f"from here: {first_line(error)}"
            ) from error
    return getattr(config, part, config)


def _build(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        return MODEL_MAPPING[type(config)](config).float()
    except (KeyError, ValueError) as error:
        kind = getattr(config, "model_type", type(config).__name__)
        raise RecipeError(f"model_type {kind!r} makes no encoder: {first_line(error)}") from error


def _load(source: str, config: PreTrainedConfig) -> PreTrainedModel:
    hf_logging.disable_progress_bar()
    try:
        with quiet_transformers():  # its report of unused weights reads like a fault
            return MODEL_MAPPING[type(config)].from_pretrained(
                source, config=config, dtype=torch.float32, use_safetensors=True
            )
    except (KeyError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{source}: its weights could not be loaded: {first_line(error)}") from error
    finally:
        hf_logging.enable_progress_bar()


def embeddings_of(backbone: nn.Module) -> nn.Module:
    """The part of an encoder that comes before its layers. Raises ValueError where none is found."""
    (found,) = (m for name, m in backbone.named_modules() if name.rpartition(".")[2] == "embeddings")
    return found


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within, transformers tells errors only."""
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
