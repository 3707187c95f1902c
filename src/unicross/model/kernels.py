"""What makes the towers faster on their device, without changing what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from unicross.model.backbones import LAYER
from unicross.model.packing import can_pack

if TYPE_CHECKING:
    from unicross.model.two_tower import TwoTower

SDPA = "sdpa_unseen_mask"
INFERENCE = "sdpa"


def _unseen_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Transformers' mask of texts for PyTorch's attention, without a look whether it hides anything.

    To look is to wait for the GPU, once for every group of texts.
    """
    return sdpa_mask(*args, **(kwargs | {"allow_is_bidirectional_skip": False}))


AttentionInterface.register(SDPA, sdpa_attention_forward)
AttentionMaskInterface.register(SDPA, _unseen_mask)


class TilesAsProduct(nn.Conv2d):
    """A convolution whose kernels tile the picture, as one matrix product.

    Forward and backward of ViT-tiny's patches on the CPU take a quarter of the time so (112 px, batch 128,
    bf16, 2026-11-26); on a GPU cuDNN's gradient of such kernels is no product of tensor cores.
    """

    def forward(self, input: Tensor) -> Tensor:  # the name in nn.Conv2d
        """[B, C, S, S] -> [B, H, s, s]"""
        height, width = self.kernel_size
        rows, columns = input.shape[2] // height, input.shape[3] // width
        seen = input[:, :, : rows * height, : columns * width]
        tiles = seen.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(tiles.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def prefer_fast_kernels(model: TwoTower, device: torch.device) -> None:
    """Train with what is fastest on `device`, and without padding where that works.

    For a model that is still whole: what one forward of a sharded model leaves is not what is trained.

    On the CPU the backward of PyTorch's fused attention takes 45 ms a layer where plain products take 10
    (ViT-tiny, batch 128, 50 tokens, 2 cores, 2026-11-23); on CUDA the fused kernel wins.
    """
    on_cpu = device.type == "cpu"
    for tower, on_gpu in ((model.image, "sdpa"), (model.text, SDPA)):  # a picture has nothing to hide
        fused = not on_cpu and tower.backbone._supports_sdpa
        tower.backbone.set_attn_implementation(on_gpu if fused else "eager")
    model.text.packs = can_pack(model.text)


@contextmanager
def inference_attention(backbone: PreTrainedModel) -> Iterator[None]:
    """Within, the encoder attends as one that was just loaded does: a model in training and the same model
    read from its checkpoint give the same vectors.
    """
    before = backbone.config._attn_implementation
    if before == INFERENCE or not backbone._supports_sdpa:
        yield
        return
    backbone.set_attn_implementation(INFERENCE)
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)


def patches_as_products(backbone: nn.Module) -> None:
    """Let convolutions whose kernels tile the picture be matrix products."""
    for module in backbone.modules():
        if type(module) is nn.Conv2d and _tiles(module):
            module.__class__ = TilesAsProduct  # its weights and their names stay


def _tiles(conv: nn.Conv2d) -> bool:
    whole = conv.padding == (0, 0) and conv.dilation == (1, 1) and conv.groups == 1
    return whole and conv.stride == conv.kernel_size


def compile_layers(model: TwoTower) -> None:
    """Compile the layers of both towers with `torch.compile`; what it gains is in docs/log.md."""
    for tower in (model.image, model.text):
        for name, module in tower.backbone.named_modules():
            if LAYER.fullmatch(name):
                module.compile(dynamic=tower is model.text)
