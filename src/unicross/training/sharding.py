"""Weights and optimiser state spread over the processes, for towers too large for one GPU.

By FSDP2 (`fully_shard`, Zhao et al. 2023): each process keeps a part of every weight, and the whole of a
layer is gathered while that layer computes. Gradients are summed, not averaged, as everywhere here
(`distributed`). The temperature is one number and stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unicross.model import TwoTower
from unicross.model.backbones import LAYER
from unicross.training.distributed import is_first, size


def shard(model: TwoTower, device: torch.device) -> None:
    """Spread a model that lies on the CPU over the devices of all processes."""
    mesh = init_device_mesh(device.type, (size(),))
    for tower in (model.image, model.text):
        layers = [module for name, module in tower.backbone.named_modules() if LAYER.fullmatch(name)]
        heads = [head for head in (tower.cross, tower.uni) if head is not None]
        for module in (*layers, tower.backbone, *heads):
            sharded = fully_shard(module, mesh=mesh)
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply on the way


def reshard(model: TwoTower) -> None:
    """Let each process keep its parts only, after a forward that no backward follows; whole models stay."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whole again, in the first process (the others get none of those that were spread).

    All processes call it at once.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            result[name] = tensor
            continue
        whole = tensor.full_tensor()
        if is_first():
            result[name] = whole.cpu()
    return result


def shard_like(tensor: Tensor, like: Tensor | None) -> Tensor:
    """This process's part of a whole tensor, where `like` is spread and of its shape; else the tensor."""
    if not isinstance(like, DTensor) or like.shape != tensor.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale gradients, some of them spread, to a norm of at most `most`. Returns the norm before."""
    moving = [p for p in parameters if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(moving, most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
