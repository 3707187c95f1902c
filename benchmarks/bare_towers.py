"""Where the bare towers' time goes on a CPU, and what the machine gives at most: `profiling.py towers`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unicross.config import ModelConfig
from unicross.device import autocast
from unicross.model import TwoTower
from unicross.model.kernels import compile_layers, prefer_fast_kernels
from unicross.model.tower import Tower

PRODUCTS = ("aten::mm", "aten::addmm")
SQUARE = 4096


def towers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of the bare towers on a CPU: seconds, and how fast their matrix products are.

    Beside them the rate of single products of the same shapes: what the machine gives at most.
    """
    ids = torch.randint(1000, 2000, (arguments.batch, arguments.tokens))
    inputs = {
        "image": {"pixel_values": torch.randn(arguments.batch, 3, arguments.size, arguments.size)},
        "text": {"input_ids": ids, "mask": torch.ones_like(ids)},
    }
    figures: dict[str, Any] = {name: _tower(arguments, name, given) for name, given in inputs.items()}
    figures["single products, GFLOP/s"] = _single_products(arguments)
    Console().print_json(data=figures)
    return {"batch": arguments.batch, "size": arguments.size, "tokens": arguments.tokens} | figures


def _tower(arguments: argparse.Namespace, name: str, inputs: dict[str, Tensor]) -> dict[str, float]:
    whole, compiled = (_bare_tower(arguments, name, compiled) for compiled in (False, True))
    with FlopCounterMode(display=False) as counter:
        _forward_backward(whole, inputs)
    counts = counter.get_flop_counts()["Global"]
    gflop = sum(n for op, n in counts.items() if str(op) in ("aten.mm", "aten.addmm")) / 1e9
    seconds = _best(
        {
            "not compiled": lambda: _forward_backward(whole, inputs),
            "compiled": lambda: _forward_backward(compiled, inputs),
        }
    )
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        _forward_backward(compiled, inputs)
    products = sum(e.self_cpu_time_total for e in profiled.key_averages() if e.key in PRODUCTS) / 1e6
    return seconds | {"products": products, "GFLOP": gflop, "GFLOP/s of products": gflop / products}


def _bare_tower(arguments: argparse.Namespace, name: str, compiled: bool) -> Tower:
    config = ModelConfig(image=arguments.image, text=arguments.text, image_size=arguments.size, dropout=0)
    model = TwoTower.create(config, max_tokens=40).train()
    prefer_fast_kernels(model, torch.device("cpu"))
    if compiled:
        compile_layers(model)
    return model.image if name == "image" else model.text


def _forward_backward(tower: Tower, inputs: dict[str, Tensor]) -> None:
    tower.zero_grad(set_to_none=True)
    with autocast(torch.device("cpu"), "auto"):
        tower.embed(tower(**inputs)).sum().backward()


def _best(variants: dict[str, Callable[[], Any]], warm: int = 3, times: int = 12) -> dict[str, float]:
    """Seconds of each, the best of `times`; they take turns."""
    best = dict.fromkeys(variants, float("inf"))
    for turn in range(-warm, times):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if turn >= 0:
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def _single_products(arguments: argparse.Namespace) -> dict[str, float]:
    """Rates of bf16 products [M, K] @ [K, N], by shape: the towers' forward ones and a large square one."""
    config = ModelConfig(image=arguments.image, text=arguments.text, image_size=arguments.size)
    model = TwoTower.create(config, max_tokens=40)
    image, text = model.image.backbone.config, model.text.backbone.config
    patches = (arguments.size // image.patch_size) ** 2 + model.image.prefix
    shapes = [(SQUARE, SQUARE, SQUARE)]
    for tokens, tower in ((patches, image), (arguments.tokens, text)):
        rows, width, inner = arguments.batch * tokens, tower.hidden_size, tower.intermediate_size
        shapes += [(rows, width, width), (rows, width, inner), (rows, inner, width)]
    rates = {}
    for m, k, n in shapes:
        a, b = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
        seconds = _best({"product": lambda a=a, b=b: a @ b})["product"]  # type: ignore[misc]
        rates[f"{m} x {k} x {n}"] = 2e-9 * m * k * n / seconds
    return rates
