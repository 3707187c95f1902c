"""What the training benchmarks share: their arguments, their pairs, and a recipe over them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from unicross.config import Recipe
from unicross.data.image_source import ImageFile
from unicross.data.load import load_items
from unicross.device import autocast
from unicross.model import TwoTower
from unicross.model.kernels import compile_layers, prefer_fast_kernels
from unicross.recipe import make_recipe

WARM = 3


def arguments_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows its description as it is and takes what `add_arguments` adds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that all training benchmarks take: data, towers, size, and where to keep figures."""
    parser.add_argument("flickr8k", type=Path)
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")


def write_pairs(flickr8k: Path, count: int, table: Path, captions: int = 1) -> list[tuple[str, list[str]]]:
    """Write `count` pairs of training pictures and captions as a JSONL table.

    Where there are fewer pictures they come again with their next captions. Returns (image's path, captions)
    of each pair.
    """
    items = [
        item for item in load_items(str(flickr8k), "train").items if isinstance(item.images[0], ImageFile)
    ]
    pairs = []
    for number in range(count):
        turn, which = divmod(number, len(items))
        item = items[which]
        said = [item.captions[(turn + i) % len(item.captions)] for i in range(captions)]
        pairs.append((str(item.images[0].path.resolve()), said))  # type: ignore[attr-defined]
    lines = (
        json.dumps({"image_id": str(number), "image": path, "caption": said}) + "\n"
        for number, (path, said) in enumerate(pairs)
    )
    table.write_text("".join(lines), encoding="utf-8")
    return pairs


def pairs_recipe(
    arguments: argparse.Namespace, table: Path, stage: dict[str, Any], **settings: Any
) -> Recipe:
    """One stage over the whole table; `settings` are those of `train`."""
    tower = {"image": arguments.image, "text": arguments.text, "image_size": arguments.size, "dropout": 0}
    return make_recipe(
        {
            "model": tower,
            "data": {"root": str(table), "split": {"train": None, "val": None}},
            "train": settings,
            "stages": [stage],
        }
    )


def bare_speed(recipe: Recipe, captions: list[str], device: torch.device, steps: int) -> float:
    """Pairs a second of forward and backward of a recipe's towers on ready tensors, each text of the length
    that they see in the mean."""
    model = TwoTower.create(recipe.model, max_tokens=recipe.data.max_tokens).to(device).train()
    prefer_fast_kernels(model, device)
    if recipe.train.compile:
        compile_layers(model)
    side, batch = model.picture_rules.side, recipe.train.batch_size
    tokens = model.tokenizer(captions, truncation=True, max_length=model.max_tokens)["input_ids"]
    length = model.text_rules.pad_to or round(sum(map(len, tokens)) / len(tokens))
    end = model.tokenizer.eos_token_id or model.tokenizer.sep_token_id
    pixels = torch.randn(batch, 3, side, side, device=device)
    ids = torch.randint(3, 20, (batch, length), device=device)
    ids[:, -1] = end
    mask = torch.ones_like(ids)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(device, "auto"):
            made = model.image.embed(model.image(pixel_values=pixels)).sum()
            made = made + model.text.embed(model.text(input_ids=ids, mask=mask)).sum()
        made.backward()

    for _ in range(WARM):
        step()
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return steps * batch / (time.perf_counter() - began)


def wait(device: torch.device) -> None:
    """For what a GPU was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
