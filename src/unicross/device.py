"""Where a model runs, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unicross.errors import RecipeError


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The named device, or CUDA where there is one, or the CPU. Raises RecipeError for one not there."""
    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise RecipeError(
                f"device {str(device)!r} cannot be used here: {reason}; cpu always can"
            ) from error
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: Literal["auto", "bf16", "fp32"]) -> torch.autocast:
    """bf16 autocast where asked for, or where `auto` and the processor multiplies bf16 natively."""
    if precision == "auto":
        native = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else bool(torch.cpu.get_capabilities().get("avx512_bf16"))
        )
        precision = "bf16" if native else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on a device; a GPU is not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
