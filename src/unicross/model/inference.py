"""How a model is run to make vectors and not to learn: its modes, its precision, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    return fetched(tensor)()


def fetched(tensor: Tensor) -> Callable[[], Floats]:
    """A call that gives the vectors on the CPU in float32; from a GPU they are copied as soon as they are
    there, and only the call waits for them. It raises CheckpointError for any that is not finite."""
    values = tensor.float()
    if values.device.type != "cuda":
        return lambda: _finite(values.cpu().numpy())
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(values.device))

    def wait() -> Floats:
        copied.synchronize()
        return _finite(host.numpy().copy())  # pinned memory is dear: it goes back

    return wait


def _finite(vectors: Floats) -> Floats:
    if not np.isfinite(vectors).all():
        raise CheckpointError(NOT_FINITE)
    return vectors
