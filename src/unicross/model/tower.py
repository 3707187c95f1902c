"""A tower: a Hugging Face encoder, its pooling, and its heads.

The *cross* head (linear, without bias, so that `VisionTextDualEncoderModel` can hold it) leads into the
shared space; the *uni* head serves the uni-modal loss while training.

Letters: B batch, L tokens, N patches, S side of a picture, H the tower's width, D and U dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from unicross.config import ModelConfig, Pooling
from unicross.data.tokens import Tokens
from unicross.errors import RecipeError
from unicross.model.backbones import embeddings_of, first_line
from unicross.model.packing import encode_texts


class Tower(nn.Module):
    """An encoder, its pooling and its two heads."""

    def __init__(self, backbone: PreTrainedModel, pool: Pooling, prefix: int, config: ModelConfig) -> None:
        """`prefix`: leading tokens that are no part of a mean (class and distillation tokens)."""
        super().__init__()
        if pool != "pooler":
            drop_unused_pooler(backbone)
        self.backbone = backbone
        self.pool = pool
        self.prefix = prefix
        self.has_adapters = False  # whether low-rank adapters move in place of the encoder's weights
        self.packs = False  # whether texts may pass without padding while training, see `packing`
        self.side: int | None = getattr(backbone.config, "image_size", None)
        self.told_to_interpolate = "interpolate_pos_encoding" in signature(backbone.forward).parameters
        width = backbone.config.hidden_size
        self.cross = nn.Linear(width, config.dim, bias=False)
        nn.init.normal_(self.cross.weight, std=width**-0.5)
        self.uni: nn.Module | None = None
        if config.uni_heads == "own":
            self.uni = nn.Sequential(
                nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, config.uni_dim, bias=False)
            )

    def forward(self, *, mask: Tensor | None = None, patch_dropout: float = 0.0, **inputs: Tensor) -> Tensor:
        """Pooled features [B, H] of pixel_values [B, 3, S, S] or input_ids [B, L] with mask [B, L].

        Pictures of another size than the tower's have its position embeddings interpolated. Of each picture
        the share `patch_dropout` of the patches, drawn by torch's random numbers, does not pass the layers.
        """
        if mask is not None:
            inputs["attention_mask"] = mask
        other_size = "pixel_values" in inputs and inputs["pixel_values"].shape[-1] != self.side
        told: dict[str, Any] = (
            {"interpolate_pos_encoding": True} if other_size and self.told_to_interpolate else {}
        )
        with dropped_patches(self.backbone, self.prefix, patch_dropout):
            output = self.backbone(**inputs, **told)
        return output.pooler_output if self.pool == "pooler" else self.pooled(output.last_hidden_state, mask)

    def encode(self, tokens: Tokens) -> Tensor:
        """Pooled features [B, H] of texts, without padding where the tower can do without it."""
        return encode_texts(self, tokens)

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The encoder's last layer [B, L, H], and what of it counts [B, L] -> features [B, H]."""
        if self.pool == "cls":
            return hidden[:, 0]
        if mask is None:
            return hidden[:, self.prefix :].mean(dim=1)
        weights = mask[:, :, None].to(hidden.dtype)  # [B, L, 1]
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def embed(self, pooled: Tensor) -> Tensor:
        """Pooled features [B, H] -> unit vectors of the shared space [B, D], float32."""
        return F.normalize(self.cross(pooled).float(), dim=-1)

    def embed_uni(self, pooled: Tensor) -> Tensor:
        """Pooled features [B, H] -> unit vectors for the uni-modal loss [B, U], float32."""
        head = self.cross if self.uni is None else self.uni
        return F.normalize(head(pooled).float(), dim=-1)


def drop_unused_pooler(backbone: nn.Module) -> None:
    """Remove the pooler where it is not read, so that it is neither trained nor saved."""
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # type: ignore[assignment]


@contextmanager
def dropped_patches(backbone: nn.Module, prefix: int, share: float) -> Iterator[None]:
    """Within, an image encoder's layers see all but a `share` of the patches, each picture without others.

    Li et al. 2023, "Scaling Language-Image Pre-training via Masking". Works where positions are added to the
    patches before the layers, as all towers but those with rotary positions do. `prefix` as of prefix_tokens.
    """
    if share == 0:
        yield
        return

    def drop(_: nn.Module, __: Any, tokens: Tensor) -> Tensor:
        patches = tokens[:, prefix:]  # [B, N, H]
        count, width = patches.shape[1:]
        order = torch.rand(patches.shape[:2], device=tokens.device).argsort(dim=1)  # [B, N]
        kept = order[:, : max(1, round((1 - share) * count)), None].expand(-1, -1, width)
        return torch.cat([tokens[:, :prefix], patches.gather(1, kept)], dim=1)

    handle = embeddings_of(backbone).register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()


def prefix_tokens(backbone: PreTrainedModel, pool: Pooling) -> int:
    """Tokens before those of the patches (class, distillation) in an image encoder's output."""
    side = getattr(backbone.config, "image_size", None)
    patch = getattr(backbone.config, "patch_size", None)
    if not isinstance(side, int) or not isinstance(patch, int):
        raise RecipeError(
            f"model_type {backbone.config.model_type!r} cannot be an image tower: it has no square "
            "image_size and patch_size. Take a ViT, DeiT, DINOv2, CLIP or SigLIP vision encoder"
        )
    try:
        output = _check_pooler(backbone, pool, pixel_values=torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"model_type {backbone.config.model_type!r} cannot see pictures of {side} px in patches of "
            f"{patch}: {first_line(error)}"
        ) from error
    return int(output.last_hidden_state.shape[1]) - (side // patch) ** 2


def check_length(backbone: PreTrainedModel, pool: Pooling, max_tokens: int) -> None:
    """Raise RecipeError where an encoder cannot take texts of so many tokens, or has no pooled output."""
    config = backbone.config
    if backbone.main_input_name != "input_ids":
        raise RecipeError(f"model_type {config.model_type!r} cannot be a text tower: it takes no tokens")
    ids = torch.full((1, max_tokens), (config.pad_token_id or 0) + 1)  # anything but padding
    try:
        _check_pooler(backbone, pool, input_ids=ids)
    except (IndexError, RuntimeError, ValueError) as error:
        limit = getattr(config, "max_position_embeddings", max_tokens)
        raise RecipeError(
            f"model_type {config.model_type!r} cannot take texts of {max_tokens} tokens: lower "
            f"data.max_tokens below {limit}"
        ) from error


def _check_pooler(backbone: PreTrainedModel, pool: Pooling, **probe: Tensor) -> Any:
    """The encoder's output for `probe`. Raises RecipeError where its pooled output is wanted and missing."""
    with torch.no_grad():
        output = backbone(**probe)
    if pool == "pooler" and getattr(output, "pooler_output", None) is None:
        raise RecipeError(
            f"model_type {backbone.config.model_type!r} has no pooled output: set its pooling to cls or mean"
        )
    return output
