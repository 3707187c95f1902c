"""AdamW over named groups, and the learning rate at every step of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from unicross.model import TwoTower
from unicross.model.backbones import LAYER
from unicross.stage import FrozenLayers, ModelPart, Optim, Stage
from unicross.training.lora import keep_adapters_only
from unicross.training.used_words import keep_used_only


def parameters_of(model: TwoTower, part: ModelPart) -> Iterator[nn.Parameter]:
    """The parameters that a recipe calls `part`."""
    match part:
        case "image":
            yield from model.image.backbone.parameters()
        case "text":
            yield from model.text.backbone.parameters()
        case "image_head":
            yield from model.image.cross.parameters()
            if model.image.uni is not None:
                yield from model.image.uni.parameters()
        case "text_head":
            yield from model.text.cross.parameters()
            if model.text.uni is not None:
                yield from model.text.uni.parameters()
        case "temperature":
            yield model.log_scale
            if model.bias is not None:
                yield model.bias


def freeze(model: TwoTower, parts: Sequence[ModelPart], layers: FrozenLayers) -> None:
    """Let everything move but `parts`, the lowest `layers`, and what stands still beside adapters."""
    model.requires_grad_(True)
    for part in parts:
        for parameter in parameters_of(model, part):
            parameter.requires_grad_(False)
    for tower, count in (("image", layers.image), ("text", layers.text)):
        depth = _depth(model, tower)
        for name, parameter in model.get_submodule(f"{tower}.backbone").named_parameters():
            if count and _below_top(name, depth) >= depth - count:
                parameter.requires_grad_(False)
    keep_adapters_only(model)
    keep_used_only(model)


def make_optimizer(model: TwoTower) -> torch.optim.AdamW:
    """AdamW with a group for each part and kind of decay; `set_rates` gives each its rate.

    Biases, norms, the temperature and embedding layers (words, patches, positions) are not decayed.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        tower = name.split(".")[0]
        if ".backbone." in name:
            key = (tower, parameter.ndim >= 2 and "embed" not in name)
        elif parameter is model.log_scale or parameter is model.bias:
            key = ("temperature", False)  # apart from weights that may be spread over processes
        else:
            key = ("head", parameter.ndim >= 2)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "part": part, "decayed": decayed}
            for (part, decayed), members in groups.items()
        ],
        lr=1e-4,
        fused=True,
    )


def _below_top(name: str, depth: int) -> int:
    """How many of `depth` layers a parameter lies below the top; embeddings lie below all of them."""
    layer = LAYER.match(name)
    if layer:
        return depth - 1 - int(layer[1])
    return depth if "embed" in name else 0


def set_rates(optimizer: torch.optim.AdamW, optim: Optim, shape: float) -> None:
    """Give every group its learning rate (that of its part times `shape`), decay and betas."""
    base = {
        "image": optim.image_lr,
        "text": optim.text_lr,
        "head": optim.head_lr,
        "temperature": optim.head_lr,
    }
    for group in optimizer.param_groups:
        group["lr"] = base[group["part"]] * shape
        group["weight_decay"] = optim.weight_decay if group["decayed"] else 0.0
        group["betas"] = optim.betas


def schedule_shape(stages: Sequence[Stage], steps: Sequence[int], stage: int, step: int) -> float:
    """Factor in (0, 1] on the learning rate: linear warm-up, then a cosine towards zero.

    A schedule spans the stages from one that restarts it, or the first, to the next.

    Args:
        steps: optimiser steps of each stage.
        stage, step: the stage, and the step within it, about to be taken.
    """
    return warmup_cosine(*_schedule(stages, steps, stage, step))


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor in (0, 1] on the learning rate of `step` (from 0): linear over `warmup` steps, then a cosine."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def warming_up(stages: Sequence[Stage], steps: Sequence[int], stage: int, step: int) -> bool:
    """Whether a step is one of its schedule's warm-up; arguments as for `schedule_shape`."""
    done, warm, _ = _schedule(stages, steps, stage, step)
    return done < warm


def _schedule(stages: Sequence[Stage], steps: Sequence[int], stage: int, step: int) -> tuple[int, int, int]:
    """Steps done of a schedule, steps of its warm-up, and all its steps."""
    starts = [i for i, s in enumerate(stages) if i == 0 or s.optim.restart_schedule]
    first = max(i for i in starts if i <= stage)
    last = min((i for i in starts if i > stage), default=len(stages))
    total = sum(steps[first:last])
    done = sum(steps[first:stage]) + step
    return done, round(stages[first].optim.warmup * total), total


def _depth(model: TwoTower, tower: str) -> int:
    return 1 + max(_layers(model, tower), default=-1)


def _layers(model: TwoTower, tower: str) -> Iterator[int]:
    for name, _ in model.get_submodule(tower).named_parameters():
        layer = LAYER.match(name)
        if layer:
            yield int(layer[1])
