"""Evaluation without a similarity matrix in memory: 100,000 images by 500,000 captions.

    python benchmarks/evaluation.py [--images 10000 100000] [--keep NAME]

Random unit vectors of 256 dimensions, five captions an image near it. The whole matrix of the largest would
take 200 GB; the peak resident set of the process, which holds the embeddings too, is reported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time

import numpy as np

from experiments import keep
from unicross.evaluation import evaluate_embeddings

DIM, CAPTIONS = 256, 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    rows = []
    for count in arguments.images:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(measure, (count,)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if arguments.keep:
        keep(arguments.keep, rows=rows)


def measure(count: int) -> dict[str, float]:
    """Evaluate `count` images; seconds, peak GiB of this process, GiB of the embeddings, rSum."""
    rng = np.random.default_rng(0)
    images = _unit(rng.standard_normal((count, DIM), np.float32))
    owner = np.repeat(np.arange(count), CAPTIONS)
    texts = np.empty((len(owner), DIM), np.float32)
    for start in range(0, len(owner), 50_000):
        rows = slice(start, start + 50_000)
        texts[rows] = _unit(
            images[owner[rows]] + 0.2 * rng.standard_normal((len(owner[rows]), DIM), np.float32)
        )
    began = time.perf_counter()
    result = evaluate_embeddings(images, texts, owner, item_ids=[str(i) for i in range(count)])
    return {
        "images": count,
        "captions": len(owner),
        "seconds": time.perf_counter() - began,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "embeddings_gib": (images.nbytes + texts.nbytes) / 2**30,
        "rsum": result.metrics["rsum"],
    }


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
