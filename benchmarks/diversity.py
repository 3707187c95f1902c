"""How various the first ten hits are where pictures are folded from a lower cosine, and what recall it costs.

    unicross index MODEL FLICKR8K/Images --store STORE
    python benchmarks/diversity.py STORE FLICKR8K [--queries 200]

The first captions of dev ask. Of each setting: the mean cosine of two of the first ten pictures, how often
the described picture is among them, and how often it is among them or behind one of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from unicross import load_items
from unicross.query import Query
from unicross.search import open_searcher

K = 10
SETTINGS = {"as they come": None, "--near 0.9": 0.9, "--near 0.8": 0.8, "--near 0.7": 0.7, "--near 0.6": 0.6}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("flickr8k")
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args()
    searcher = open_searcher(given.store)
    items = load_items(given.flickr8k, "dev").items[: given.queries]
    for name, near in SETTINGS.items():
        cosines, found, first = [], 0, 0
        for item in items:
            query = Query(item.captions[0], k=K, fold=near is not None, near=near)
            hits = searcher.find(query)
            rows = searcher.store.get([hit.row.id for hit in hits])
            vectors = np.stack([row.vector for row in rows if row.vector is not None])
            cosines.append((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)].mean())
            paths = [[Path(one.row.path).name for one in (hit, *hit.others)] for hit in hits]
            found += item.id in {path for group in paths for path in group}
            first += item.id in {group[0] for group in paths}
        shares = (100 * count / len(items) for count in (first, found))
        print(name, f"{np.mean(cosines):.3f}", *(f"{share:.1f}" for share in shares), sep="\t", flush=True)


if __name__ == "__main__":
    main()
