"""A pretrained pair on a GPU against its bare towers: training, the memory of adapters, embedding, indexing.

    python benchmarks/clip_pair.py PAIR [--family siglip]
    python benchmarks/gpu_pairs.py FLICKR8K PAIR [--batch 512] [--steps 24] [--pictures 8000] [--keep NAME]

*Bare* training is the towers' forward and backward on ready tensors, compiled as the run's are; `tune_clip`
is the whole loop, in its second epoch. *Bare* embedding is the image tower on pixels that lie on the GPU; the
pictures of `embed` and `index` are JPEG files of 512×384, `index` writes into a LanceDB store and its
archive. *Decoding* reads and prepares the same files and embeds none. All sides take turns, the best of each
counts.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from experiments import keep
from index import make_pictures
from pairs import bare_speed, write_pairs
from unicross.config import Recipe
from unicross.data.images import decode_batches
from unicross.embed import embed_images
from unicross.errors import DataError
from unicross.model import TwoTower
from unicross.recipe import make_recipe
from unicross.training import train

DEVICE = torch.device("cuda")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("flickr8k", type=Path)
    parser.add_argument("pair")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    given = parser.parse_args()
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name(), "batch": given.batch}
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        for part in (embedding, training):
            figures |= part(given, Path(home))
            if given.keep:
                keep(given.keep, **figures)


def training(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Pairs a second of the bare towers, of plain tuning and of adapters, and the most memory of each."""
    table = home / "pairs.jsonl"
    pairs = write_pairs(given.flickr8k, given.batch * given.steps, table)
    captions = [captions[0] for _, captions in pairs]
    recipes = {name: _recipe(given, table, lora) for name, lora in (("tune_clip", None), ("tune_lora", {}))}
    sides: dict[str, Callable[[], float]] = {
        "bare towers": lambda: bare_speed(recipes["tune_clip"], captions, DEVICE, given.steps),
        **{name: lambda recipe=recipe: _tuning(recipe, home) for name, recipe in recipes.items()},
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, float] = {}
    for _ in range(given.rounds):
        for name, measure in sides.items():
            torch.cuda.reset_peak_memory_stats()
            _note(speeds, name, measure())
            memory[name] = torch.cuda.max_memory_allocated() / 2**30
            _clear()
    _show("pairs/s", speeds, "bare towers", memory)
    return {"pairs_per_second": speeds, "training_gib": memory}


def _recipe(given: argparse.Namespace, table: Path, lora: dict[str, Any] | None) -> Recipe:
    return make_recipe(
        {
            "model": {"pair": given.pair},
            "data": {"root": str(table), "split": {"train": None, "val": None}},
            "train": {"batch_size": given.batch, "compile": True, "save_minutes": 1000.0, "lora": lora},
            "stages": [{"name": "align", "epochs": 2, "losses": {"image_text": 1.0}}],
        }
    )


def _tuning(recipe: Recipe, home: Path) -> float:
    heard: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=home) as folder:
        train(recipe, Path(folder) / "run", listener=heard.append, device="cuda")
    return [float(event["pairs_per_second"]) for event in heard if event["kind"] == "epoch"][-1]


def embedding(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    """Pictures a second of the bare image tower, of decoding alone, of `embed_images` and of `index`."""
    model = TwoTower.load(given.pair, "cuda")
    made = make_pictures(home / "photos", min(given.pictures, 1000))
    paths = made + [home / "photos" / f"{number:05}.jpg" for number in range(len(made), given.pictures)]
    for number, path in enumerate(paths[len(made) :]):
        path.write_bytes(made[number % len(made)].read_bytes() + str(number).encode())  # its own content
    sides = {
        "bare tower": lambda _: _bare_embedding(model, len(paths)),
        "decoding": lambda _: _decoding(model, paths),
        "embed": lambda _: _embedding(model, paths),
        "index": lambda turn: _indexing(model, home, turn, len(paths)),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    model.encode_images(paths[:512])
    for turn in range(given.rounds):
        for name, measure in sides.items():
            began = time.perf_counter()
            measure(turn)
            _note(speeds, name, len(paths) / (time.perf_counter() - began))
    _show("pictures/s", speeds, "bare tower", {})
    return {"pictures_per_second": speeds}


def _bare_embedding(model: TwoTower, count: int) -> None:
    side, batch = model.picture_rules.side, model.images_at_once
    pixels = torch.randn(batch, 3, side, side, device=DEVICE)
    with model._inference():
        for _ in range(0, count, batch):
            model.image.embed(model.image(pixel_values=pixels))
    torch.cuda.synchronize()


def _decoding(model: TwoTower, paths: list[Path]) -> None:
    rules = model.picture_rules
    for _ in decode_batches(paths, rules.side, rules.resize, model.images_at_once):
        pass


def _embedding(model: TwoTower, paths: list[Path]) -> None:
    assert not any(isinstance(vector, DataError) for vector in embed_images(model, paths))


def _indexing(model: TwoTower, home: Path, turn: int, count: int) -> None:
    from unicross.store import StoreInfo, open_store
    from unicross.store.archive import EmbeddingArchive
    from unicross.store.index import index

    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=model.dim)
    archive = EmbeddingArchive(home / f"archive{turn}")
    report = index(model, home / "photos", open_store(f"{home}/store{turn}", info), archive=archive)
    assert report.added == count, report


def _clear() -> None:
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


def _note(speeds: dict[str, list[float]], name: str, speed: float) -> None:
    """Also said at once: a machine with a GPU may be taken away before the end."""
    speeds[name].append(speed)
    print(f"{name}: {speed:.0f} a second", file=sys.stderr, flush=True)


def _show(unit: str, speeds: dict[str, list[float]], bound: str, memory: dict[str, float]) -> None:
    best = {name: float(np.max(values)) for name, values in speeds.items()}
    table = Table("side", unit, "all rounds", f"of {bound}", "most GiB")
    for name, values in speeds.items():
        gib = f"{memory[name]:.2f}" if name in memory else ""
        rounds = " ".join(f"{value:.0f}" for value in values)
        table.add_row(name, f"{best[name]:.0f}", rounds, f"{best[name] / best[bound]:.2f}", gib)
    Console().print(table)


if __name__ == "__main__":
    main()
