"""Peak memory of a large batch in micro-batches against a small one: what gradient caching saves.

    python benchmarks/batch_memory.py FLICKR8K IMAGE_TOWER TEXT_TOWER [--keep NAME]

Each setting trains one epoch in a process of its own, whose peak memory is reported (on a GPU what tensors
take there, else the resident set): a batch of 256 at once, and one of 4,096 in micro-batches of 256. Both see
the same 4,096 pairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from experiments import keep
from pairs import arguments_parser, pairs_recipe, write_pairs
from unicross.training import train

SETTINGS = {"256": (256, None), "4096 by 256": (4096, 256)}
PAIRS = 4096


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--device")
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.jsonl"
        write_pairs(arguments.flickr8k, PAIRS, table)
        for name, (batch, micro) in SETTINGS.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows[name] = pool.apply(measure, (arguments, table, batch, micro))
    shown = Table("batch", "peak GiB", "seconds")
    for name, row in rows.items():
        shown.add_row(name, f"{row['peak_gib']:.2f}", f"{row['seconds']:.0f}")
    Console().print(shown)
    small, large = (row["peak_gib"] for row in rows.values())
    print(f"{large / small:.2f} times the memory of the small batch")
    if arguments.keep:
        towers = [Path(arguments.image).name, Path(arguments.text).name]
        keep(arguments.keep, towers=towers, size=arguments.size, rows=rows)


def measure(arguments: argparse.Namespace, table: Path, batch: int, micro: int | None) -> dict[str, float]:
    """Train one epoch; peak GiB of this process and seconds."""
    stage = {"name": "align", "epochs": 1, "losses": {"image_text": 1.0}}
    recipe = pairs_recipe(arguments, table, stage, batch_size=batch, micro_batch=micro, save_minutes=1000)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run", device=arguments.device)
    seconds = time.perf_counter() - began
    on_gpu = torch.cuda.max_memory_allocated()  # 0 where there is none
    peak = on_gpu / 2**30 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"peak_gib": peak, "seconds": seconds}


if __name__ == "__main__":
    main()
