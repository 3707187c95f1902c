"""What an encoder needs to be a tower, found by trying it: its pooling, its width, its class tokens.

A pooling that makes no sense of an encoder is refused, and the default suits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from unicross.config import Pooling
from unicross.errors import RecipeError
from unicross.model.hub import first_line

HALVES = ("_text_model", "_vision_model")
"""How model types of the halves of pairs end: these pool as they were trained to."""
NAFLEX = "siglip2_vision_model"
"""Sees patches of pictures in their own proportions, on a `PatchCanvas`."""
LAYERS = 4
"""Of the pooling `layers`."""
FIRST_TOKEN = frozenset({"chinese_clip_text_model", "align_text_model"})
"""Halves whose pair takes their first token, though there is a pooler."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What trying an encoder tells."""

    pool: Pooling
    width: int
    """H of the pooled features."""
    prefix: int | None = 0
    """Tokens before those of the patches (class, distillation); None where there are no patches."""


def fit_image(backbone: PreTrainedModel, pool: Pooling | None, side: int) -> Fit:
    """How an encoder is an image tower for pictures of `side` px. Raises RecipeError where it is none."""
    kind, patch = backbone.config.model_type, getattr(backbone.config, "patch_size", None)
    if backbone.main_input_name != "pixel_values":
        raise RecipeError(f"model_type {kind!r} cannot be an image tower: it takes no pictures")
    if kind == NAFLEX:
        if pool not in (None, "pooler"):
            raise RecipeError(f"image_pool={pool} makes no sense of {kind!r}: leave it out")
        return Fit("pooler", backbone.config.hidden_size, None)
    own = getattr(backbone.config, "image_size", None)  # others are interpolated
    side = own if isinstance(own, int) else side
    try:
        output = _tried(backbone, pixel_values=torch.zeros(1, 3, side, side))
    except (AttributeError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        patches = f" in patches of {patch}" if patch else ""
        raise RecipeError(
            f"model_type {kind!r} cannot see pictures of {side} px{patches}: {first_line(error)}"
        ) from error
    hidden, whole = output.last_hidden_state, getattr(output, "pooler_output", None)
    prefix = None
    if isinstance(patch, int) and hidden.ndim == 3:
        prefix = int(hidden.shape[1]) - (side // patch) ** 2
        prefix = prefix if prefix >= 0 else None  # Swin merges its patches
    if pool is None:
        own = whole is not None and (prefix is None or kind.endswith(HALVES))
        pool = "pooler" if own else "cls" if prefix else "mean"
    if pool == "last":
        raise RecipeError(f"image_pool=last makes no sense of {kind!r}: leave it out, or set cls or mean")
    if pool == "cls" and kind.endswith(HALVES) and whole is not None:
        raise RecipeError(
            f"image_pool=cls of {kind!r} would skip its last layers: leave it out, or set pooler"
        )
    if pool != "pooler" and prefix is None:
        raise RecipeError(
            f"model_type {kind!r} has no tokens of patches: leave image_pool out, or set pooler"
        )
    if pool == "layers":
        output = _tried(backbone, output_hidden_states=True, pixel_values=torch.zeros(1, 3, side, side))
        return Fit(pool, int(layers_pooled(output, prefix or 0).shape[1]), prefix)
    if pool == "cls" and prefix == 0:
        raise RecipeError(f"model_type {kind!r} has no class token: leave image_pool out, or set mean")
    return Fit(pool, _width(kind, pool, hidden, whole), prefix)


def fit_text(backbone: PreTrainedModel, pool: Pooling | None, max_tokens: int) -> Fit:
    """How an encoder is a text tower for so many tokens. Raises RecipeError where it is none."""
    config, kind = backbone.config, backbone.config.model_type
    if pool == "layers":
        raise RecipeError("text_pool=layers is for pictures: leave it out, or set mean")
    if backbone.main_input_name != "input_ids":
        raise RecipeError(f"model_type {kind!r} cannot be a text tower: it takes no tokens")
    if getattr(config, "is_encoder_decoder", False):
        raise RecipeError(
            f"model_type {kind!r} is an encoder with a decoder, which makes no tower: take an encoder alone, "
            "such as a BERT"
        )
    anything = ((config.pad_token_id or 0) + 1) % config.vocab_size  # but padding
    ids = torch.full((1, max_tokens), anything)
    try:
        output = _tried(backbone, input_ids=ids)
    except (IndexError, RuntimeError, ValueError) as error:
        limit = getattr(config, "max_position_embeddings", max_tokens)
        if max_tokens < limit - 2:  # it is not their number
            raise RecipeError(f"model_type {kind!r} cannot take texts: {first_line(error)}") from error
        raise RecipeError(
            f"model_type {kind!r} cannot take texts of {max_tokens} tokens: lower "
            f"data.max_tokens below {limit}"
        ) from error
    hidden, whole = output.last_hidden_state, getattr(output, "pooler_output", None)
    causal = is_causal(backbone)
    if pool is None:
        if kind.endswith(HALVES):
            pool = "cls" if kind in FIRST_TOKEN or whole is None else "pooler"
        else:
            pool = "last" if causal else "mean"
    if pool == "cls" and causal:
        raise RecipeError(
            f"text_pool=cls of {kind!r} gives all texts one vector, as its first token sees no other: leave "
            f"it "
            f"out, or set {'pooler' if whole is not None else 'last'}"
        )
    return Fit(pool, _width(kind, pool, hidden, whole))


def layers_pooled(output: Any, prefix: int) -> Tensor:
    """What an encoder of pictures says in its last `LAYERS` layers [B, L, H], each token of unit variance:
    the class token, where there is a `prefix`, and the mean of the patches, of each. [B, layers * 2H]"""
    last = output.last_hidden_state
    before = output.hidden_states[max(1, len(output.hidden_states) - LAYERS) : -1]
    layers = [*(F.layer_norm(hidden, hidden.shape[-1:]) for hidden in before), last]
    parts = [[hidden[:, 0]] * (prefix > 0) + [hidden[:, prefix:].mean(dim=1)] for hidden in layers]
    return torch.cat([part for of_layer in parts for part in of_layer], dim=1)


@torch.no_grad()
def is_causal(backbone: PreTrainedModel) -> bool:
    """Whether no token sees those after it."""
    count = min(4, int(backbone.config.vocab_size))
    ids = torch.arange(count)[None].expand(2, -1).contiguous()
    ids[1, -1] = 0
    training = backbone.training
    with torch.random.fork_rng(devices=[]):
        mask = torch.ones_like(ids)
        first, other = backbone.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    backbone.train(training)
    return bool(torch.allclose(first[0], other[0], rtol=0, atol=1e-6))


@torch.no_grad()
def _tried(backbone: PreTrainedModel, **probe: Any) -> Any:
    return backbone(**probe)


def _width(kind: str, pool: Pooling, hidden: Tensor, whole: Tensor | None) -> int:
    """H. Raises RecipeError where the pooled output is wanted and missing."""
    if pool != "pooler":
        return int(hidden.shape[-1])
    if whole is None:
        raise RecipeError(f"model_type {kind!r} has no pooled output: set its pooling to cls or mean")
    return int(whole.flatten(1).shape[1])
