"""Where the time and the memory of training go.

    python benchmarks/profiling.py kernels FLICKR8K IMAGE_TOWER TEXT_TOWER    # a GPU's steps by kernel
    python benchmarks/profiling.py towers IMAGE_TOWER TEXT_TOWER              # bare towers on a CPU
    python benchmarks/profiling.py texts FLICKR8K IMAGE_TOWER TEXT_TOWER      # what padding costs
    python benchmarks/profiling.py memory FLICKR8K IMAGE_TOWER TEXT_TOWER     # gradient caching
    python benchmarks/profiling.py method FLICKR8K IMAGE_TOWER TEXT_TOWER     # in epochs of plain CLIP

All take `--keep NAME`. Where variants are compared they take turns and the best of each counts, since sharing
a machine only ever slows.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bare_towers import towers
from experiments import keep
from pairs import add_arguments, pairs_recipe, write_pairs
from unicross.data.load import read_splits
from unicross.device import autocast
from unicross.streams import stream
from unicross.training import train
from unicross.training.batch import make_batch
from unicross.training.dataset import cached_side, make_dataset
from unicross.training.features import text_features
from unicross.training.rounds import Round
from unicross.training.state import make_model

NEVER = 1000.0
"""Minutes between step checkpoints, so that none falls into what is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for measure in (kernels, towers, texts, memory, method):
        command = commands.add_parser(measure.__name__, help=(measure.__doc__ or "").split("\n")[0])
        command.set_defaults(measure=measure)
        if measure is towers:
            command.add_argument("image")
            command.add_argument("text")
            command.add_argument("--size", type=int, default=112)
            command.add_argument("--tokens", type=int, default=15, help="of each text")
            command.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
        else:
            add_arguments(command)
            command.add_argument("--compile", action="store_true")
            command.add_argument("--device", help="of memory and method")
            command.add_argument("--threads", type=int)
        command.add_argument("--batch", type=int, default=1024 if measure is kernels else 128)
        if measure is kernels:
            command.add_argument("--steps", type=int, default=8)
            command.add_argument("--shown", type=int, default=25, help="single kernels listed")
        if measure is method:
            command.add_argument("--small", type=float, default=0.57, help="size of small second views")
            command.add_argument("--items", type=int, default=1280)
            command.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    figures = arguments.measure(arguments)
    if arguments.keep:
        keep(arguments.keep, **figures)


@contextmanager
def _pairs(arguments: argparse.Namespace, count: int, captions: int = 1) -> Iterator[Path]:
    """A table of pairs in a folder of its own, in which runs may lie too."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.jsonl"
        write_pairs(arguments.flickr8k, count, table, captions)
        yield table


def _train(
    arguments: argparse.Namespace, table: Path, run: str, stage: dict[str, Any], **options: Any
) -> list[dict[str, Any]]:
    """Train one stage in the folder of the table; the events of training. `options` are those of `train`."""
    events: list[dict[str, Any]] = []
    listener = options.pop("listener", events.append)
    settings = {"compile": arguments.compile, "threads": arguments.threads, "save_minutes": NEVER}
    recipe = pairs_recipe(arguments, table, stage, **settings | options)
    train(recipe, table.parent / run, listener=listener, device=arguments.device)
    return events


def _stage(epochs: int, losses: dict[str, float] | None = None, **sections: Any) -> dict[str, Any]:
    return {"name": "align", "epochs": epochs, "losses": losses or {"image_text": 1.0}} | sections


KINDS = {
    "attention": r"flash|fmha|attention|sdpa|cudnn_generated|cudnn::fusion",
    "matrix products": r"gemm|cutlass|cublas|nvjet|xmma|sm90_|splitK",
    "optimiser": r"adam|multi_tensor",
    "copies": r"memcpy|memset",
    "compiled by Triton": r"^triton",
    "pictures resampled": r"grid_sampl",
}
"""What the names of kernels of a kind hold; the first that fits counts."""


def kernels(arguments: argparse.Namespace) -> dict[str, Any]:
    """The second epoch of sole CLIP on a GPU by kind of kernel, and how long the GPU stands idle."""
    arguments.device = "cuda"
    profiler = profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU])
    epochs: list[dict[str, Any]] = []

    def listener(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            epochs.append(event)
            if len(epochs) == 1:
                profiler.start()
            else:
                torch.cuda.synchronize()
                profiler.stop()

    with _pairs(arguments, arguments.batch * arguments.steps) as table:
        _train(arguments, table, "run", _stage(2), batch_size=arguments.batch, listener=listener)
    seconds = epochs[-1]["seconds"]
    events = [event for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
    end = max(event.time_range.end for event in events)
    events = [event for event in events if event.time_range.start > end - 1e6 * seconds]  # no checkpoint's
    busy = covered(sorted((event.time_range.start, event.time_range.end) for event in events)) / 1e6
    kinds, names, counts = Counter[str](), Counter[str](), Counter[str]()
    for event in events:
        span = (event.time_range.end - event.time_range.start) / 1e6
        kinds[kind_of(event.name)] += span
        names[event.name] += span
        counts[event.name] += 1
    by_kind = Table("kind", "ms a step", "of the epoch")
    for kind, spent in [*kinds.most_common(), ("any", busy)]:
        by_kind.add_row(kind, f"{1000 * spent / arguments.steps:.1f}", f"{100 * spent / seconds:.1f} %")
    Console().print(by_kind)
    single = Table("kernel", "times a step", "ms a step")
    for name, spent in names.most_common(arguments.shown):
        times = counts[name] / arguments.steps
        single.add_row(name[:90], f"{times:.0f}", f"{1000 * spent / arguments.steps:.2f}")
    Console(width=130).print(single)
    print(f"{seconds / arguments.steps:.3f} s a step, {epochs[-1]['pairs_per_second']:.0f} pairs/s, profiled")
    return {
        **_settings(arguments, "batch", "size", "compile"),
        "seconds_a_step": seconds / arguments.steps,
        "busy": busy / seconds,
        "milliseconds_a_step": {kind: 1000 * spent / arguments.steps for kind, spent in kinds.items()},
    }


def kind_of(kernel: str) -> str:
    """The kind of a kernel by its name."""
    for kind, pattern in KINDS.items():
        if re.search(pattern, kernel, re.IGNORECASE):
            return kind
    return "others"


def covered(spans: list[tuple[float, float]]) -> float:
    """How much of the time some of these spans, sorted by their beginnings, cover."""
    total, until = 0.0, float("-inf")
    for start, stop in spans:
        total += max(0.0, stop - max(start, until))
        until = max(until, stop)
    return total


TEXT_BATCHES, TURNS, WARM = 10, 3, 1
PACKED = {"end to end": True, "padded groups": False}


def texts(arguments: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of the text tower on the captions of batches, texts end to end and padded."""
    with _pairs(arguments, arguments.batch * TEXT_BATCHES) as table:
        settings = {"batch_size": arguments.batch, "compile": arguments.compile}
        recipe = pairs_recipe(arguments, table, _stage(1), **settings)
        items, _, _ = read_splits(recipe.data)
        model = make_model(recipe, items, torch.device("cpu")).train()
        side = cached_side(recipe.data, model.picture_rules)
        rng, silent = stream(0, "captions"), lambda *_: None
        data, _ = make_dataset(items, model, recipe.data, side=side, where=None, rng=rng, progress=silent)
        stage, size, unclustered = recipe.stages[0], recipe.train.batch_size, Round()
        batches = [
            make_batch(data, pairs, stage, unclustered, 0, stream(0, "batch", 0, 0, number))
            for number, pairs in enumerate(np.split(data.pairs, range(size, len(data.pairs), size)))
        ]
    seconds: dict[str, list[float]] = {name: [] for name in PACKED}
    for turn, batch in itertools.product(range(-WARM, TURNS), batches):
        for name, model.text.packs in PACKED.items():
            model.zero_grad()
            began = time.perf_counter()
            with autocast(model.device, "auto"):
                features = text_features(model, batch, slice(None), stage.losses).cross
            assert features is not None
            features.square().mul(torch.arange(features.shape[-1])).sum().backward()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - began)
    figures = {name: {"median": statistics.median(s), "best": min(s)} for name, s in seconds.items()}
    Console().print_json(data=figures)
    return _settings(arguments, "batch", "compile") | {"seconds": figures}


BATCHES = {"256": (256, None), "4096 by 256": (4096, 256)}
"""Batch and micro-batch; both see the same 4,096 pairs once."""


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a large batch in micro-batches against a small one: what gradient caching saves."""
    rows = {}
    with _pairs(arguments, 4096) as table:
        for name, sizes in BATCHES.items():  # each in a process of its own, whose peak is its own
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows[name] = pool.apply(_peak, (arguments, table, name, *sizes))
    shown = Table("batch", "peak GiB", "seconds")
    for name, row in rows.items():
        shown.add_row(name, f"{row['peak_gib']:.2f}", f"{row['seconds']:.0f}")
    Console().print(shown)
    small, large = (row["peak_gib"] for row in rows.values())
    print(f"{large / small:.2f} times the memory of the small batch")
    names = [Path(arguments.image).name, Path(arguments.text).name]
    return {"towers": names, "size": arguments.size, "rows": rows}


def _peak(
    arguments: argparse.Namespace, table: Path, name: str, batch: int, micro: int | None
) -> dict[str, float]:
    """Train one epoch; seconds, and peak GiB of tensors on a GPU, else of this process."""
    began = time.perf_counter()
    _train(arguments, table, name, _stage(1), batch_size=batch, micro_batch=micro)
    seconds = time.perf_counter() - began
    on_gpu = torch.cuda.max_memory_allocated()  # 0 where there is none
    peak = on_gpu / 2**30 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"peak_gib": peak, "seconds": seconds}


EPOCHS = 3
"""The first is warm-up, and fills the bank of features that rounds reuse."""


def method(arguments: argparse.Namespace) -> dict[str, Any]:
    """An epoch of all three losses with clusters, in epochs of plain CLIP, and the share of its rounds."""
    losses = {"image_text": 1.0, "image_image": 0.1, "text_text": 0.1}
    clustered = {"batches": {"kind": "clustered", "cluster_size": 16, "mask_above": 1.1}}
    small = {"text": "sibling", "image_uni": {"size": arguments.small}}
    sides = {
        "clip": _stage(EPOCHS),
        "method": _stage(EPOCHS, losses, views={"text": "sibling"}, **clustered),
        "method, small views": _stage(EPOCHS, losses, views=small, **clustered),
    }
    epochs: dict[str, list[float]] = {name: [] for name in sides}
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    with _pairs(arguments, arguments.items, captions=5) as table:
        for turn, (name, stage) in itertools.product(range(arguments.rounds), sides.items()):
            events = _train(arguments, table, f"{turn} {name}", stage, batch_size=arguments.batch)
            epochs[name] += [event["seconds"] for event in events if event["kind"] == "epoch"][1:]
            rounds[name] += [event["seconds"] for event in events if event["kind"] == "round"][1:]
            print(f"round {turn + 1}: {name} {min(epochs[name]):.1f} s", file=sys.stderr, flush=True)
    shown = Table("side", "s an epoch", "of clip's", "s a round", "of its epoch")
    for name in sides:
        epoch, spent = min(epochs[name]), min(rounds[name], default=0.0)
        ratio = f"{(epoch + spent) / min(epochs['clip']):.2f}"
        share = f"{100 * spent / (epoch + spent):.1f} %"
        shown.add_row(name, f"{epoch:.1f}", ratio, f"{spent:.2f}", share)
    Console().print(shown)
    settings = _settings(arguments, "size", "small", "batch", "items", "compile")
    return settings | {"epoch_seconds": epochs, "round_seconds": rounds}


def _settings(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in names}


if __name__ == "__main__":
    main()
