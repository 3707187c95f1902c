"""Pretrained pairs (CLIP, SigLIP, ...) as two towers with their own heads, temperature and preparation.

One adapter for all families over transformers' own feature functions: a pair's halves become towers, and what
these make is held against `get_image_features` and `get_text_features` whenever a pair is read, so that a
family which does not fit is refused and never silently wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from unicross.config import Pooling
from unicross.data.preparation import PatchCanvas, PictureRules, TextRules
from unicross.errors import CheckpointError
from unicross.model.pooling import FIRST_TOKEN
from unicross.model.processors import in_patches
from unicross.model.tokenizer import check_vocabulary

SEES_PADDING = frozenset({"siglip_text_model", "siglip2_text_model"})
"""Halves that were trained on texts padded to their full length, without a mask."""
TOLERANCE = 1e-4
"""Of features of length 1, ours against the pair's own."""
LINEAR = 1e-2
"""Up to this scale, tanh is as good as linear for what encoders make."""
LONGEST = 2048
"""Tokens of a text, where neither tower nor tokenizer has a limit."""


@dataclass(frozen=True)
class Pair:
    """Two encoders that were pretrained together, and all that belongs to them."""

    image: PreTrainedModel
    text: PreTrainedModel
    image_pool: Pooling
    text_pool: Pooling
    image_head: nn.Module
    """[H] -> [D]"""
    text_head: nn.Module
    log_scale: float
    """Logarithm of 1 / temperature."""
    bias: float | None
    """Of the scores, where the pair was trained with one."""
    tokenizer: PreTrainedTokenizerFast
    max_tokens: int
    pictures: PictureRules
    texts: TextRules


def pair_of(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pictures: PictureRules,
    *,
    pad_left: bool = False,
) -> Pair:
    """A model of transformers with its processors as a pair. Raises CheckpointError where it does not fit."""
    parts: Any = model
    if not hasattr(parts, "vision_model") or not hasattr(parts, "text_model"):
        raise CheckpointError(
            f"{name}: pairs of model_type {model.config.model_type!r} are not supported: their halves are "
            f"not apart"
        )
    check_vocabulary(name, tokenizer, parts.text_model)
    text_kind = parts.text_model.config.model_type
    limit = most_tokens(parts.text_model.config, tokenizer)
    fixed = text_kind in SEES_PADDING
    scale = getattr(parts, "logit_scale", None)
    bias = getattr(parts, "logit_bias", None)
    image_pool, image_head = _pooling(parts.vision_model, getattr(parts, "visual_projection", None))
    text_pool, text_head = _pooling(parts.text_model, getattr(parts, "text_projection", None))
    pair = Pair(
        image=parts.vision_model,
        text=parts.text_model,
        image_pool=image_pool,
        text_pool="cls" if text_kind in FIRST_TOKEN else text_pool,
        image_head=image_head,
        text_head=text_head,
        log_scale=float(scale.detach())
        if scale is not None
        else -math.log(float(parts.temperature.detach())),
        bias=None if bias is None else float(bias.detach()),
        tokenizer=tokenizer,
        max_tokens=limit,
        pictures=pictures,
        texts=TextRules(pad_to=limit if fixed else None, pad_left=fixed and pad_left),
    )
    _check_equal(name, model, pair)
    own_head = pop_head(pair.text)
    return pair if own_head is None else dataclasses.replace(pair, text_head=own_head)


def pop_head(encoder: PreTrainedModel) -> nn.Linear | None:
    """Take the linear head off an encoder that has it inside, as the text half of SigLIP; None for none."""
    holder: Any = encoder
    head = getattr(holder, "head", None)
    if not isinstance(head, nn.Linear):
        return None
    holder.head = nn.Identity()
    return head


@torch.no_grad()
def _pooling(encoder: Any, projection: nn.Linear | None) -> tuple[Pooling, nn.Module]:
    """How a half is pooled, and its head.

    A pooler that only hands the first token on, made small enough for its tanh to be linear
    (`export/huggingface.py`), becomes that token, and its head takes the scale back: such small weights, and
    heads so large, would not bear training at common rates.
    """
    if projection is None:
        return "pooler", nn.Identity()
    dense = getattr(getattr(encoder, "pooler", None), "dense", None)
    if not isinstance(dense, nn.Linear) or dense.weight.shape[0] != dense.weight.shape[1]:
        return "pooler", projection
    scale = dense.weight[0, 0]
    small = 0 < float(scale) <= LINEAR and not dense.bias.any()
    if not small or not torch.equal(dense.weight, scale * torch.eye(len(dense.weight))):
        return "pooler", projection
    head = copy.deepcopy(projection)
    head.weight.mul_(scale)
    return "cls", head


@torch.no_grad()
def _check_equal(name: str, model: Any, pair: Pair) -> None:
    """Raise CheckpointError unless the towers make what the pair's own functions make, of one probe each."""
    side = pair.pictures.side
    seen = {"pixel_values": torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side)}
    if isinstance(canvas := pair.pictures.resize, PatchCanvas):
        seen = canvas_inputs(canvas, seen["pixel_values"], np.array([[1, canvas.most]]))
    ids = torch.tensor([pair.tokenizer("a photo of a cat")["input_ids"]])
    pad = pair.tokenizer.pad_token_id
    if pair.texts.pad_to is not None:
        ids = nn.functional.pad(ids, (0, pair.texts.pad_to - ids.shape[1]), value=pad)
    try:
        theirs = (
            _features(model.get_image_features(**seen)),
            _features(model.get_text_features(input_ids=ids)),
        )
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{name}: its weights, picture size ({side} px) and tokenizer do not fit each other: {error}"
        ) from error
    image, text = pair.image(**seen), pair.text(input_ids=ids)
    ours = (
        pair.image_head(_pooled(image, pair.image_pool)),
        pair.text_head(_pooled(text, pair.text_pool)),
    )
    if ours[0].shape != ours[1].shape:
        raise CheckpointError(
            f"{name}: its pictures have vectors of {ours[0].shape[1]} numbers, its texts of "
            f"{ours[1].shape[1]}: "
            "they cannot be compared"
        )
    for a, b in zip(ours, theirs, strict=True):
        same = a.shape == b.shape and torch.allclose(
            nn.functional.normalize(a), nn.functional.normalize(b), rtol=0, atol=TOLERANCE
        )
        if not same:
            raise CheckpointError(
                f"{name}: pairs of model_type {model.config.model_type!r} are not supported: their features "
                f"are "
                "not those of their halves"
            )


def canvas_inputs(canvas: PatchCanvas, shown: Tensor, shapes: NDArray[np.int64]) -> dict[str, Tensor]:
    """What NaFlex's tower takes: canvases [B, 3, S, S] of pictures with so many rows and columns [B, 2]."""
    seen = np.arange(canvas.most) < shapes.prod(axis=1)[:, None]
    return {
        "pixel_values": in_patches(shown, canvas),
        "pixel_attention_mask": torch.from_numpy(seen).to(shown.device, torch.int64),
        "spatial_shapes": torch.from_numpy(shapes),
    }


def _pooled(output: Any, pool: Pooling) -> Tensor:
    pooled: Tensor = output.last_hidden_state[:, 0] if pool == "cls" else output.pooler_output.flatten(1)
    return pooled


def _features(output: Any) -> Tensor:
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features


def most_tokens(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> int:
    """The longest text in tokens that a text encoder and its tokenizer take."""
    positions = int(getattr(config, "max_position_embeddings", LONGEST))
    if "roberta" in config.model_type or getattr(config, "model_type", "") == "camembert":
        positions -= 2  # their positions begin after that of the padding
    return int(min(positions, tokenizer.model_max_length, LONGEST))
