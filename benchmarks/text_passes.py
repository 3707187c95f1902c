"""What padding costs: `python benchmarks/text_passes.py FLICKR8K IMAGE_TOWER TEXT_TOWER [--compile]`.

Seconds of the text tower's forward and backward on the captions of a batch, as the training step does it:
texts end to end, and in padded groups, as towers that cannot pack take them. Both see the same batches, in
turn; the median and the best over all of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from experiments import keep
from pairs import arguments_parser, pairs_recipe, write_pairs
from unicross.config import Recipe
from unicross.device import autocast
from unicross.training.dataset import cached_side, make_dataset, read_splits
from unicross.training.prepare import make_batch
from unicross.training.state import make_model
from unicross.training.step import _text_features

BATCHES, TURNS, WARM = 10, 3, 1
SIDES = {"end to end": True, "padded groups": False}


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.jsonl"
        write_pairs(arguments.flickr8k, arguments.batch * BATCHES, table)
        stage = {"name": "align", "epochs": 1, "losses": {"image_text": 1.0}}
        recipe = pairs_recipe(arguments, table, stage, batch_size=arguments.batch, compile=arguments.compile)
        seconds = _measure(recipe)
    figures = {name: {"median": statistics.median(s), "best": min(s)} for name, s in seconds.items()}
    Console().print_json(data=figures)
    if arguments.keep:
        keep(arguments.keep, batch=arguments.batch, compile=arguments.compile, seconds=figures)


def _measure(recipe: Recipe) -> dict[str, list[float]]:
    items, _, _ = read_splits(recipe)
    model = make_model(recipe, items, torch.device("cpu")).train()
    side = cached_side(recipe.data, recipe.model)
    data, _ = make_dataset(items, model, recipe.data, side=side, where=None, progress=lambda *_: None)
    stage, size = recipe.stages[0], recipe.train.batch_size
    batches = [
        make_batch(data, data.pairs[start : start + size], stage, None, 0, (0, start))
        for start in range(0, len(data.pairs), size)
    ]
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for turn in range(-WARM, TURNS):
        for batch in batches:
            for name, model.text.packs in SIDES.items():
                model.zero_grad()
                began = time.perf_counter()
                with autocast(model.device, "auto"):
                    features, _ = _text_features(model, batch, slice(None), stage.losses)
                assert features is not None
                features.square().mul(torch.arange(features.shape[-1])).sum().backward()
                if turn >= 0:
                    seconds[name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
