"""How a model is run to make vectors and not to learn: its modes, its precision, what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unicross.device import autocast
from unicross.errors import NOT_FINITE, CheckpointError
from unicross.model.kernels import inference_attention

Floats = NDArray[np.float32]


@contextmanager
def inference(
    model: nn.Module, backbones: tuple[nn.Module, nn.Module], device: torch.device
) -> Iterator[None]:
    """A model in eval mode, without gradients, in half precision where that is native; then as it was."""
    training = model.training
    # Switching hundreds of modules there and back would take three tenths of the time of a query.
    switch = any(module.training for module in model.modules())
    if switch:
        model.eval()
    image, text = backbones
    try:
        with (
            torch.no_grad(),  # what FSDP gathers in inference_mode cannot be trained afterwards
            autocast(device, "auto"),
            torch.compiler.set_stance("force_eager"),  # layers compiled for training's shapes only
            inference_attention(image),
            inference_attention(text),
        ):
            yield
    finally:
        if switch:
            model.train(training)


def as_numpy(tensor: Tensor) -> Floats:
    """Vectors on the CPU in float32. Raises CheckpointError for any that is not finite."""
    vectors: Floats = tensor.float().cpu().numpy()
    if not np.isfinite(vectors).all():
        raise CheckpointError(NOT_FINITE)
    return vectors
