"""Where a GPU's time goes in training: the steps of an epoch by kind of kernel, and how long it stands idle.

    python benchmarks/step_profile.py FLICKR8K IMAGE_TOWER TEXT_TOWER [--compile] [--keep NAME]

The second epoch of a run of sole CLIP, as in train_throughput.py, seen by torch's profiler.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from experiments import keep
from pairs import arguments_parser, pairs_recipe, write_pairs
from unicross.training import train

KINDS = {
    "attention": r"flash|fmha|attention|sdpa|cudnn_generated|cudnn::fusion",
    "matrix products": r"gemm|cutlass|cublas|nvjet|xmma|sm90_|splitK",
    "optimiser": r"adam|multi_tensor",
    "copies": r"memcpy|memset",
    "compiled by Triton": r"^triton",
    "pictures resampled": r"grid_sampl",
}
"""What the names of kernels of a kind hold; the first that fits counts."""


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shown", type=int, default=25, help="single kernels listed")
    arguments = parser.parse_args()
    profiler = profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU])
    epochs: list[dict[str, Any]] = []

    def hear(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            epochs.append(event)
            if len(epochs) == 1:
                profiler.start()
            else:
                torch.cuda.synchronize()
                profiler.stop()

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.jsonl"
        write_pairs(arguments.flickr8k, arguments.batch * arguments.steps, table)
        stage = {"name": "align", "epochs": 2, "losses": {"image_text": 1.0}}
        settings = {"batch_size": arguments.batch, "compile": arguments.compile, "save_minutes": 1000}
        recipe = pairs_recipe(arguments, table, stage, **settings)
        train(recipe, Path(folder) / "run", listener=hear, device="cuda")
    seconds = epochs[-1]["seconds"]
    kernels = [event for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
    end = max(event.time_range.end for event in kernels)
    kernels = [event for event in kernels if event.time_range.start > end - 1e6 * seconds]  # no checkpoint's
    spans = sorted((event.time_range.start, event.time_range.end) for event in kernels)
    busy = covered(spans) / 1e6
    kinds, names, counts = Counter[str](), Counter[str](), Counter[str]()
    for event in kernels:
        span = (event.time_range.end - event.time_range.start) / 1e6
        kinds[kind_of(event.name)] += span
        names[event.name] += span
        counts[event.name] += 1
    shown = Table("kind", "ms a step", "of the epoch")
    for kind, spent in [*kinds.most_common(), ("any", busy)]:
        shown.add_row(kind, f"{1000 * spent / arguments.steps:.1f}", f"{100 * spent / seconds:.1f} %")
    Console().print(shown)
    single = Table("kernel", "times a step", "ms a step")
    for name, spent in names.most_common(arguments.shown):
        times = counts[name] / arguments.steps
        single.add_row(name[:90], f"{times:.0f}", f"{1000 * spent / arguments.steps:.2f}")
    Console(width=130).print(single)
    print(f"{seconds / arguments.steps:.3f} s a step, {epochs[-1]['pairs_per_second']:.0f} pairs/s, profiled")
    if arguments.keep:
        keep(
            arguments.keep,
            device=torch.cuda.get_device_name(),
            batch=arguments.batch,
            size=arguments.size,
            compile=arguments.compile,
            seconds_a_step=seconds / arguments.steps,
            busy=busy / seconds,
            milliseconds_a_step={kind: 1000 * spent / arguments.steps for kind, spent in kinds.items()},
        )


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


if __name__ == "__main__":
    main()
