"""A model as a pair of transformers: CLIPModel, SiglipModel, ... where its towers are such halves, else a
VisionTextDualEncoderModel; with tokenizer and picture processor.
"""

from __future__ import annotations

import copy
import inspect
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import (
    MODEL_MAPPING,
    CLIPImageProcessorPil,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Siglip2ImageProcessorPil,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from unicross.data.preparation import ExactResize, PatchCanvas, PictureRules
from unicross.errors import CheckpointError
from unicross.model import TwoTower
from unicross.model.pairs import SEES_PADDING
from unicross.model.tower import Tower

TINY = 1e-3
"""By so much a pooler that ends in tanh scales its input, which leaves it linear within 1e-5."""


def write_huggingface(model: TwoTower, folder: Path) -> None:
    """Fill a folder. Raises CheckpointError for towers whose pooling no class of transformers has."""
    pair = as_pair(model)
    pair.save_pretrained(folder)
    write_processors(model, folder)


def write_processors(model: TwoTower, folder: Path) -> None:
    """Tokenizer and picture processor, as transformers writes them."""
    text_tokenizer(model).save_pretrained(folder)
    picture_processor(model.picture_rules).save_pretrained(folder)


def text_tokenizer(model: TwoTower) -> PreTrainedTokenizerFast:
    """The tokenizer, which cuts and pads texts as the model does when it is loaded again."""
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.model_max_length = model.max_tokens
    tokenizer.padding_side = "left" if model.text_rules.pad_left else "right"
    names = ["padding_side"]
    if model.text.backbone.config.model_type in SEES_PADDING:
        tokenizer.model_input_names = ["input_ids"]  # no mask
        names.append("model_input_names")
    tokenizer.init_kwargs |= dict.fromkeys(names)  # of what is set, what has a name here is written
    return tokenizer


def picture_processor(rules: PictureRules) -> Any:
    """The processor of transformers that prepares pictures by these rules."""
    resize, square = rules.resize, {"height": rules.side, "width": rules.side}
    if isinstance(resize, PatchCanvas):
        return Siglip2ImageProcessorPil(
            patch_size=resize.patch,
            max_num_patches=resize.most,
            resample=Image.Resampling[resize.filter.upper()],
            image_mean=list(rules.mean),
            image_std=list(rules.std),
        )
    if not isinstance(resize, ExactResize):
        resize = ExactResize(rules.side, rules.side, resize == "crop")
    both = {"height": resize.first, "width": resize.first}
    return CLIPImageProcessorPil(
        size={"shortest_edge": resize.first} if resize.keeps_proportions else both,
        do_center_crop=resize.keeps_proportions or resize.first != rules.side,
        crop_size=square,
        resample=Image.Resampling[resize.filter.upper()],
        image_mean=list(rules.mean),
        image_std=list(rules.std),
    )


def as_pair(model: TwoTower) -> PreTrainedModel:
    """The model as one of transformers, on the CPU. Raises CheckpointError where none holds it."""
    family = family_of(model)
    pair: Any = _of_family(model, family) if family is not None else _dual(model)
    for tower, there in zip((model.image, model.text), _heads(pair), strict=True):
        if isinstance(tower.cross, nn.Linear):
            assert there is not None  # as `_check_heads` found
            there.load_state_dict(cpu_weights(tower.cross))
    with torch.no_grad():
        log_scale = model.scale.log().cpu()
        if hasattr(pair, "temperature"):
            pair.temperature.fill_(1 / math.exp(log_scale))
        else:
            pair.logit_scale.fill_(log_scale)
        if hasattr(pair, "logit_bias"):
            pair.logit_bias.fill_(0.0 if model.bias is None else model.bias.item())
    return _linear_poolers(model, pair).eval()


def _heads(pair: Any) -> tuple[nn.Linear | None, nn.Linear | None]:
    """Where a pair has linear heads of its pictures and of its texts; SigLIP's is inside the text half."""
    inside = getattr(pair.text_model, "head", None)
    return getattr(pair, "visual_projection", None), getattr(pair, "text_projection", inside)


def family_of(model: TwoTower) -> type[PreTrainedConfig] | None:
    """The configuration of the family of which both towers are halves, pooled as it pools; else None."""
    halves = type(model.image.backbone.config), type(model.text.backbone.config)
    modules = {half.__module__ for half in halves}
    pooled = model.image.pool == "pooler" and model.text.pool in ("pooler", "cls")
    if len(modules) > 1 or not pooled:
        return None
    for _, kind in inspect.getmembers(import_module(modules.pop()), inspect.isclass):
        parts = getattr(kind, "sub_configs", None) or {}
        if (parts.get("vision_config"), parts.get("text_config")) == halves and kind in MODEL_MAPPING:
            return kind
    return None


def _of_family(model: TwoTower, family: type[PreTrainedConfig]) -> PreTrainedModel:
    config = family(
        vision_config=model.image.backbone.config.to_dict(),
        text_config=model.text.backbone.config.to_dict(),
        projection_dim=model.dim,
    )
    pair: Any = MODEL_MAPPING[family](config).float()
    for half, tower in ((pair.vision_model, model.image), (pair.text_model, model.text)):
        missing, _ = half.load_state_dict(cpu_weights(tower.backbone), strict=False)
        assert all(
            name.startswith(("pooler.", "head.")) for name in missing
        )  # ALIGN's text half never uses its pooler; the head inside SigLIP's is the tower's
    _check_heads(model, pair)
    made: PreTrainedModel = pair
    return made


def _dual(model: TwoTower) -> PreTrainedModel:
    for name, tower in (("image", model.image), ("text", model.text)):
        kind = tower.backbone.config.model_type
        if tower.pool not in ("pooler", "cls") or not _can_pool(tower):
            cls = tower.pool == "cls"
            how = "takes its first token without a pooler" if cls else f"pools by {tower.pool!r}"
            advice = "" if cls else f", or train with model.{name}_pool=cls"
            raise CheckpointError(
                f"the {name} tower ({kind}) {how}, which no pair of transformers does: write it "
                f"--to sentence-transformers or --to onnx{advice}"
            )
    image, text = (copy.deepcopy(tower.backbone).cpu() for tower in (model.image, model.text))
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        image.config, text.config, projection_dim=model.dim
    )
    pair = VisionTextDualEncoderModel(config).float()
    pair.vision_model.load_state_dict(image.state_dict(), strict=False)  # poolers are made below
    pair.text_model.load_state_dict(text.state_dict(), strict=False)
    _check_heads(model, pair)
    return pair


def _can_pool(tower: Tower) -> bool:
    """Whether the encoder's class has a pooler that can be made to hand its first token on."""
    if tower.pool == "pooler":
        return True
    fresh = type(tower.backbone)(tower.backbone.config)
    return isinstance(getattr(getattr(fresh, "pooler", None), "dense", None), nn.Linear)


@torch.no_grad()
def _linear_poolers(model: TwoTower, pair: Any) -> PreTrainedModel:
    """Let the poolers of towers that take their first token hand it on; tanh is undone by the projection."""
    if not isinstance(pair, VisionTextDualEncoderModel):
        return pair
    for tower, encoder, projection in (
        (model.image, pair.vision_model, pair.visual_projection),
        (model.text, pair.text_model, pair.text_projection),
    ):
        if tower.pool == "cls":
            dense = encoder.pooler.dense
            dense.weight.copy_(TINY * torch.eye(*dense.weight.shape))
            dense.bias.zero_()
            projection.weight.div_(TINY)
    return pair


def _check_heads(model: TwoTower, pair: Any) -> None:
    """Raise CheckpointError where the class has no place for the model's heads."""
    for tower, there in zip((model.image, model.text), _heads(pair), strict=True):
        ours = tower.cross if isinstance(tower.cross, nn.Linear) else None
        fits = (there is None) == (ours is None)
        if ours is not None and there is not None:
            fits = there.weight.shape == ours.weight.shape and (there.bias is None) == (ours.bias is None)
        if not fits:
            raise CheckpointError(
                f"{type(pair).__name__} has no place for this model's heads: it cannot be exported as one"
            )


def cpu_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a module, on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
