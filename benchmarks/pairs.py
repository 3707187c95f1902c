"""What the training benchmarks share: their arguments, their pairs, and a recipe over them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from unicross.config import Recipe
from unicross.data.image_source import ImageFile
from unicross.data.load import load_items
from unicross.recipe import make_recipe


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
