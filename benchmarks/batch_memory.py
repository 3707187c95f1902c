"""Peak memory of a large batch in micro-batches against a small one: what gradient caching saves.

    python benchmarks/batch_memory.py FLICKR8K IMAGE_TOWER TEXT_TOWER [--keep NAME]

Each setting trains one epoch in a process of its own, whose peak resident set is reported: a batch of 256 at
once, and one of 4,096 in micro-batches of 256. Both see the same 4,096 pairs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from results import keep
from unicross.data.items import ImageFile
from unicross.data.reading import load_items
from unicross.recipe import make_recipe
from unicross.training import train

SETTINGS = {"256": (256, None), "4096 by 256": (4096, 256)}
PAIRS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("flickr8k", type=Path)
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--keep", help="write docs/results/NAME.json")
    arguments = parser.parse_args()
    items = load_items(str(arguments.flickr8k), "train").items[:PAIRS]
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pairs.jsonl"
        records = [
            (str(i.image.path.resolve()), i.captions[0]) for i in items if isinstance(i.image, ImageFile)
        ]
        data.write_text("".join(json.dumps({"image": p, "caption": c}) + "\n" for p, c in records))
        for name, (batch, micro) in SETTINGS.items():
            given = (str(data), arguments.image, arguments.text, arguments.size, batch, micro)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows[name] = pool.apply(measure, given)
    table = Table("batch", "peak GiB", "seconds")
    for name, row in rows.items():
        table.add_row(name, f"{row['peak_gib']:.2f}", f"{row['seconds']:.0f}")
    Console().print(table)
    small, large = (row["peak_gib"] for row in rows.values())
    print(f"{large / small:.2f} times the memory of the small batch")
    if arguments.keep:
        keep(arguments.keep, rows=rows)


def measure(data: str, image: str, text: str, size: int, batch: int, micro: int | None) -> dict[str, float]:
    """Train one epoch; peak GiB of this process and seconds."""
    recipe = make_recipe(
        {
            "model": {"image": image, "text": text, "image_size": size, "dropout": 0},
            "data": {"root": data, "split": {"train": None, "val": None}},
            "train": {"batch_size": batch, "micro_batch": micro, "save_minutes": 1000},
            "stages": [{"name": "align", "epochs": 1, "losses": {"image_text": 1.0}}],
        }
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run")
    seconds = time.perf_counter() - began
    return {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "seconds": seconds}


if __name__ == "__main__":
    main()
