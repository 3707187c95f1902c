"""Whether a version of the code is slower than another: training and search, side by side in one run.

    python benchmarks/versions.py OTHER/src src FLICKR8K IMAGE_TOWER TEXT_TOWER [--turns 5] [--keep NAME]

The two sources take turns, each time in a process of its own and in one thread. *Training* is the recipe
`clip` on the first training pairs, without validation: steps a second of the fastest epoch but the first.
*Search* is `Searcher` on a LanceDB store of made vectors, asked by words with a tiny text tower: the median
milliseconds of a query. The median of the turns counts, and the ratio of the two sides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("dog", "child", "boat", "red", "big", "in", "on", "snow", "water", "runs", "two", "with", "street")
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MEASURED = {"training, steps/s": "steps_per_second", "search, ms a query": "query_ms"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the folder src of a checkout")
    parser.add_argument("after", type=Path)
    parser.add_argument("flickr8k", type=Path)
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=192)
    parser.add_argument("--rows", type=int, default=10_000, help="of the store")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # what a process of its own measures
    parser.add_argument("--table", help=argparse.SUPPRESS)  # and on which pairs
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(MEASURES[arguments.side](arguments)))
        return
    from pairs import write_pairs  # here, as it knows one version of unicross only

    figures: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in MEASURED}
    turns = itertools.product(range(arguments.turns), MEASURED.items(), ("before", "after"))
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.jsonl"
        write_pairs(arguments.flickr8k, arguments.pairs, table, captions=5)
        for turn, (name, side), version in turns:
            figures[name][version].append(_run(getattr(arguments, version), side, table))
            print(turn + 1, name, version, figures[name][version][-1], file=sys.stderr, flush=True)
    medians = {
        name: {version: statistics.median(values) for version, values in by_version.items()}
        for name, by_version in figures.items()
    }
    for name, median in medians.items():
        ratio = median["after"] / median["before"]
        print(f"{name}: {median['before']:.3g} before, {median['after']:.3g} after, {ratio:.3f} x")
    if arguments.keep:
        from experiments import keep

        keep(arguments.keep, pairs=arguments.pairs, rows=arguments.rows, figures=figures)


def _run(source: Path, side: str, table: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *sys.argv, "--side", side, "--table", str(table)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{source}: {side} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def train_steps(arguments: argparse.Namespace) -> float:
    """Steps a second of the fastest epoch of three but the first."""
    from unicross.recipe import load_recipe
    from unicross.training import train

    epochs: list[dict[str, Any]] = []

    def listener(event: Any) -> None:
        if event["kind"] == "epoch":
            epochs.append(event)

    overrides = [f"data.root={arguments.table}", "data.split.train=null", "data.split.val=null"]
    overrides += [f"model.image={arguments.image}", f"model.text={arguments.text}", "stages.0.epochs=3"]
    overrides += ["train.batch_size=32", "train.threads=1", "train.save_minutes=1000"]
    with tempfile.TemporaryDirectory() as folder:
        train(load_recipe("clip", overrides), Path(folder) / "run", listener=listener, device="cpu")
    return max(epoch["batches"] / epoch["seconds"] for epoch in epochs[1:])


def query_times(arguments: argparse.Namespace) -> float:
    """The median milliseconds of a query of seven words, of 300 after 30 to warm up."""
    import torch

    from unicross.config import ModelConfig
    from unicross.model import TwoTower
    from unicross.search import Searcher
    from unicross.store import Row, StoreInfo, open_store

    torch.set_num_threads(1)
    torch.manual_seed(0)
    towers = {
        "image": {"model_type": "vit", "patch_size": 8, **LAYERS},
        "text": {"model_type": "bert", "vocab_size": 200, "max_position_embeddings": 64, **LAYERS},
    }
    config = ModelConfig(**towers, dim=256, image_size=32)
    model = TwoTower.create(config, max_tokens=24, captions=[" ".join(WORDS)]).eval()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((arguments.rows, model.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=model.dim)
        store = open_store(f"{folder}/store", info)
        store.upsert([Row(str(i), "image", f"/p/{i}.jpg", vector=v) for i, v in enumerate(vectors)])
        store.optimize()
        searcher, times = Searcher(model, store), []
        for _ in range(330):
            words = " ".join(rng.choice(WORDS, 7))
            began = time.perf_counter()
            _ask(searcher, words)
            times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[30:])


def _ask(searcher: Any, words: str) -> None:
    if not hasattr(searcher, "find"):  # as it was until 2026-11-26
        searcher.by_text(words)
        return
    from unicross import Query

    searcher.find(Query(words))


MEASURES = {"steps_per_second": train_steps, "query_ms": query_times}


if __name__ == "__main__":
    main()
