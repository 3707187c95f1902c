"""What is left of recall where vectors are cut to their first numbers: `losses.dims` against none.

    python benchmarks/cut_vectors.py ROOT SPLIT RUN [RUN ...] [--dims 96 48 24 12]

Prints the rSum of each run on a split, by the size of its vectors.
"""

from __future__ import annotations

import argparse

from unicross import TwoTower, evaluate, load_items
from unicross.embed import shortened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("split")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--dims", type=int, nargs="+", default=[96, 48, 24, 12])
    arguments = parser.parse_args()
    items = load_items(arguments.root, arguments.split).items
    for run in arguments.runs:
        model = TwoTower.load(run)
        sums = [evaluate(shortened(model, dim), items).metrics["rsum"] for dim in arguments.dims]
        print(run, *(f"{dim}: {rsum:.1f}" for dim, rsum in zip(arguments.dims, sums, strict=True)), sep="\t")


if __name__ == "__main__":
    main()
