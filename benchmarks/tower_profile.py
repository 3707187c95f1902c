"""Where the bare towers' time goes on a CPU: `python benchmarks/tower_profile.py IMAGE_TOWER TEXT_TOWER`.

For each tower: seconds of a forward and backward as it is, compiled as `train.compile` does, and compiled
with a batch in halves or weights kept in bf16 (the best of several, the variants in turn); how much of the
compiled pass are matrix products (one profiled pass), and their rate. Beside them the rate of single products
of the same shapes: what the machine gives at most.
"""

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

from experiments import keep
from unicross.config import ModelConfig
from unicross.device import autocast
from unicross.model import Tower, TwoTower
from unicross.training.speed import compile_layers, prefer_fast_kernels

PRODUCTS = ("aten::mm", "aten::addmm")
WARM, TIMES = 3, 12
SQUARE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=15, help="of each text")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    pixels = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    ids = torch.randint(1000, 2000, (arguments.batch, arguments.tokens))
    inputs = {
        "image": {"pixel_values": pixels},
        "text": {"input_ids": ids, "mask": torch.ones_like(ids)},
    }
    figures: dict[str, Any] = {name: _tower(arguments, name, given) for name, given in inputs.items()}
    figures["single products, GFLOP/s"] = _single_products(arguments)
    Console().print_json(data=figures)
    if arguments.keep:
        keep(arguments.keep, batch=arguments.batch, size=arguments.size, tokens=arguments.tokens, **figures)


def _tower(arguments: argparse.Namespace, name: str, inputs: dict[str, Tensor]) -> dict[str, float]:
    whole = _made(arguments, name)
    with FlopCounterMode(display=False) as counter:
        _pass(whole, [inputs])
    counts = counter.get_flop_counts()["Global"]
    flop = sum(n for op, n in counts.items() if str(op) in ("aten.mm", "aten.addmm"))
    halves = [{k: v.chunk(2)[i] for k, v in inputs.items()} for i in range(2)]
    compiled, light = _made(arguments, name, compiled=True), _made(arguments, name, compiled=True, bf16=True)
    given = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    seconds = _best(
        {
            "not compiled": lambda: _pass(whole, [inputs]),
            "compiled": lambda: _pass(compiled, [inputs]),
            "compiled, in halves": lambda: _pass(compiled, halves),
            "compiled, bf16 weights": lambda: _pass(light, [given]),
        }
    )
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        _pass(compiled, [inputs])
    products = sum(e.self_cpu_time_total for e in profiled.key_averages() if e.key in PRODUCTS) / 1e6
    return seconds | {"products": products, "GFLOP": flop / 1e9, "GFLOP/s of products": flop / 1e9 / products}


def _made(arguments: argparse.Namespace, name: str, *, compiled: bool = False, bf16: bool = False) -> Tower:
    config = ModelConfig(image=arguments.image, text=arguments.text, image_size=arguments.size, dropout=0)
    model = TwoTower.create(config, max_tokens=40).train()
    prefer_fast_kernels(model, torch.device("cpu"))
    if compiled:
        compile_layers(model)
    tower = model.image if name == "image" else model.text
    if bf16:
        tower.backbone.bfloat16()
    return tower


def _pass(tower: Tower, parts: list[dict[str, Tensor]]) -> None:
    tower.zero_grad(set_to_none=True)
    with autocast(torch.device("cpu"), "auto"):
        tower.embed(torch.cat([tower(**part) for part in parts])).sum().backward()


def _best(variants: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of each, the best of TIMES; they take turns."""
    best = dict.fromkeys(variants, float("inf"))
    for turn in range(-WARM, TIMES):
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
    rates = {}
    shapes = [(SQUARE, SQUARE, SQUARE)]
    for tokens, tower in ((patches, image), (arguments.tokens, text)):
        rows, width, inner = arguments.batch * tokens, tower.hidden_size, tower.intermediate_size
        shapes += [(rows, width, width), (rows, width, inner), (rows, inner, width)]
    for m, k, n in shapes:
        a, b = torch.randn(m, k).bfloat16(), torch.randn(k, n).bfloat16()
        seconds = _best({"product": lambda a=a, b=b: a @ b})["product"]  # type: ignore[misc]
        rates[f"{m} x {k} x {n}"] = 2e-9 * m * k * n / seconds
    return rates


if __name__ == "__main__":
    main()
