"""A tower: a Hugging Face encoder, its pooling, and its heads.

The *cross* head (linear, or that of a pretrained pair, or none where the pair's towers meet by themselves)
leads into the shared space; the *uni* head serves the uni-modal loss while training.

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
from unicross.model.backbones import embeddings_of
from unicross.model.packing import encode_texts
from unicross.model.pooling import Fit, layers_pooled

NO_PATCH = 32
"""Views of pictures come in multiples of a patch, and of this where the tower has none."""


class Tower(nn.Module):
    """An encoder, its pooling and its two heads."""

    def __init__(
        self, backbone: PreTrainedModel, fit: Fit, config: ModelConfig, cross: nn.Module | None = None
    ) -> None:
        """`fit`: what was found out about the encoder. `cross`: a head that is there; None makes a new
        one."""
        super().__init__()
        if fit.pool != "pooler":
            drop_unused_pooler(backbone)
        self.backbone = backbone
        self.pool: Pooling = fit.pool
        self.prefix = fit.prefix
        self.has_adapters = False  # whether low-rank adapters move in place of the encoder's weights
        self.packs = False  # whether texts may pass without padding while training, see `packing`
        self.side: int | None = getattr(backbone.config, "image_size", None)
        self.told_to_interpolate = "interpolate_pos_encoding" in signature(backbone.forward).parameters
        width = fit.width
        if cross is None:
            cross = nn.Linear(width, config.dim, bias=False)
            nn.init.normal_(cross.weight, std=width**-0.5)
        self.cross = cross
        self.dim = cross.weight.shape[0] if isinstance(cross, nn.Linear) else width
        self.uni: nn.Module | None = None
        if config.uni_heads == "own":
            self.uni = nn.Sequential(
                nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, config.uni_dim, bias=False)
            )

    @property
    def patch(self) -> int:
        """Side of a patch in pixels, or what stands for it where a picture is not cut into patches."""
        size = getattr(self.backbone.config, "patch_size", None)
        return size if isinstance(size, int) and self.prefix is not None else NO_PATCH

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
            output = self.backbone(
                **inputs, **told, **({"output_hidden_states": True} if self.pool == "layers" else {})
            )
        if self.pool == "pooler":
            whole: Tensor = output.pooler_output
            return whole.flatten(1)
        if self.pool == "layers":
            return layers_pooled(output, self.prefix or 0)
        return self.pooled(output.last_hidden_state, mask)

    def encode(self, tokens: Tokens) -> Tensor:
        """Pooled features [B, H] of texts, without padding where the tower can do without it."""
        return encode_texts(self, tokens)

    def pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """The encoder's last layer [B, L, H], and what of it counts [B, L] -> features [B, H]."""
        if self.pool == "cls":
            return hidden[:, 0]
        if mask is None:
            return hidden[:, self.prefix :].mean(dim=1)
        if self.pool == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
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
def dropped_patches(backbone: nn.Module, prefix: int | None, share: float) -> Iterator[None]:
    """Within, an image encoder's layers see all but a `share` of the patches, each picture without others.

    Li et al. 2023, "Scaling Language-Image Pre-training via Masking". Works where positions are added to the
    patches before the layers, as all towers but those with rotary positions do. `prefix` as in `Fit`. Raises
    ValueError for a tower without patches.
    """
    if share == 0:
        yield
        return
    if prefix is None:
        raise ValueError("this tower has no patches to drop")

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
