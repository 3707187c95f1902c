"""How many of a store's ten best pictures, and of its best ones, another store of the same pictures finds.

    python benchmarks/same_hits.py STORE OTHER ROOT SPLIT

The first caption of each item of a split asks.
"""

from __future__ import annotations

import sys

from unicross import load_items
from unicross.query import Query
from unicross.search import Searcher, open_searcher

K = 10


def main() -> None:
    store, other, root, split = sys.argv[1:]
    words = [item.captions[0] for item in load_items(root, split).items]
    expected, found = (best(open_searcher(address), words) for address in (store, other))
    same = sum(len({*a} & {*b}) for a, b in zip(expected, found, strict=True))
    first = sum(a[0] == b[0] for a, b in zip(expected, found, strict=True))
    print(f"of the {K} best {same / K / len(words):.3f}, of the best {first / len(words):.3f}")


def best(searcher: Searcher, words: list[str]) -> list[list[str]]:
    return [[hit.row.path for hit in searcher.find(Query(text, k=K))] for text in words]


if __name__ == "__main__":
    main()
