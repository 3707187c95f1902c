"""Time and memory of clustering as the data grow, and what the two-level scheme costs in quality.

    python benchmarks/clustering.py [--sizes 10000 100000 1000000] [--keep NAME]

Vectors are mixtures: 256 dimensions, one centre for each 100 items, noise as long as the centre. Each size
runs in a process of its own, whose peak resident set is reported. At 100,000 items the scheme is set against
one flat k-means with the same balanced assignment: the mean cosine of items to the centre of their cluster.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import keep
from unicross import clustering
from unicross.clustering import Floats, Indices, balanced_clusters, normalise

DIM, CLUSTER, FLAT_AT = 256, 32, 100_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    table = Table(
        "items", "clusters", "seconds", "peak GiB", "of it data", "cosine to centre", "flat k-means"
    )
    rows = []
    for size in arguments.sizes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measure, (size,))
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
        flat = f"{row['flat_cosine']:.4f} in {row['flat_seconds']:.0f} s" if "flat_cosine" in row else ""
        table.add_row(
            f"{size:,}",
            f"{row['clusters']:,}",
            f"{row['seconds']:.1f}",
            f"{row['peak_gib']:.2f}",
            f"{row['data_gib']:.2f}",
            f"{row['cosine']:.4f}",
            flat,
        )
    Console().print(table)
    if arguments.keep:
        keep(arguments.keep, rows=rows)


def measure(size: int) -> dict[str, float]:
    """Cluster `size` vectors and say what it took."""
    vectors = _mixture(size)
    began = time.perf_counter()
    groups = balanced_clusters(vectors, CLUSTER, seed=0)
    seconds = time.perf_counter() - began
    row = {
        "items": size,
        "clusters": len(groups),
        "seconds": seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "data_gib": vectors.nbytes / 2**30,
        "cosine": _cosine(vectors, groups),
    }
    if size == FLAT_AT:
        clustering.FLAT_LIMIT = size  # one k-means over everything
        began = time.perf_counter()
        flat = balanced_clusters(vectors, CLUSTER, seed=0)
        row |= {"flat_seconds": time.perf_counter() - began, "flat_cosine": _cosine(vectors, flat)}
    return row


def _mixture(size: int) -> Floats:
    rng = np.random.default_rng(0)
    centres = normalise(rng.standard_normal((max(size // 100, 1), DIM), dtype=np.float32))
    rows = rng.standard_normal((size, DIM), dtype=np.float32)
    rows /= np.sqrt(DIM, dtype=np.float32)
    rows += centres[rng.integers(len(centres), size=size)]
    return rows


def _cosine(vectors: Floats, groups: list[Indices]) -> float:
    """Mean cosine of an item to the centre of its cluster."""
    total = 0.0
    for group in groups:
        rows = normalise(vectors[group])
        total += float((rows @ normalise(rows.mean(axis=0, keepdims=True)).T).sum())
    return total / len(vectors)


if __name__ == "__main__":
    main()
