"""Hybrid search against vectors alone and words alone, where pictures have captions.

    python benchmarks/hybrid.py CHECKPOINT --flickr8k ROOT [--keep NAME]
    python benchmarks/hybrid.py CHECKPOINT --emoji ROOT [--keep NAME]

Flickr8k: for every picture of dev one caption asks; it is stored with the other four. Emoji: pictures
of one maker are stored with labels in six languages, and a keyword of each language asks. Recall at k in
percent: queries of which a right picture is among the first k.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments import keep
from unicross.data.load import load_items
from unicross.embed import embed_images
from unicross.model import TwoTower
from unicross.search import Query, Searcher
from unicross.store import Row, StoreInfo, make_id, open_store

AT = (1, 5, 10)
LANGUAGES = ("en", "de", "fr", "es", "zh", "ja")


@dataclass(frozen=True)
class Task:
    """Pictures with texts, and queries with the pictures that answer them."""

    pictures: dict[str, tuple[object, list[str]]]
    """By path: where the picture is read from, and its texts."""
    queries: dict[str, list[tuple[str, set[str]]]]
    """By group."""


def flickr8k(root: Path) -> Task:
    items = load_items(str(root), "dev").items
    pictures, queries = {}, []
    for item in items:
        (image,) = item.images
        path = image.name
        pictures[path] = (image, list(item.captions[1:]))
        queries.append((item.captions[0], {path}))
    return Task(pictures, {"captions": queries})


def emoji(root: Path) -> Task:
    records = [json.loads(line) for line in (root / "items.jsonl").read_text().splitlines()]
    pictures, answers = {}, {language: defaultdict(set) for language in LANGUAGES}
    for record in records:
        if record["split"] != "dev" or "noto" not in record["images"]:
            continue
        path = str(root / record["images"]["noto"])
        pictures[path] = (path, [record[language]["label"] for language in LANGUAGES])
        for language in LANGUAGES:
            for tag in record[language]["tags"]:
                answers[language][tag].add(path)
    return Task(pictures, {language: list(of.items()) for language, of in answers.items()})


def rows_of(model: TwoTower, task: Task) -> Iterator[Row]:
    vectors = embed_images(model, [source for source, _ in task.pictures.values()])
    for (path, (_, texts)), vector in zip(task.pictures.items(), vectors, strict=True):
        row = Row(make_id("image", path), "image", path, caption=texts[0], vector=vector)
        yield row
        for text, text_vector in zip(texts, model.encode_texts(texts), strict=True):
            id = make_id("text", path, text)
            yield replace(row, id=id, kind="text", caption=text, vector=text_vector)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--flickr8k", type=Path)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--queries", type=int, default=300, help="of a group at most")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    model = TwoTower.load(arguments.checkpoint, "cpu")
    task = flickr8k(arguments.flickr8k) if arguments.flickr8k else emoji(arguments.emoji)
    figures = []
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=arguments.checkpoint, dim=model.dim)
        store = open_store(f"{home}/store", info)
        store.upsert(list(rows_of(model, task)))
        store.optimize()
        searcher = Searcher(model, store)
        for group, queries in task.queries.items():
            chosen = np.random.default_rng(0).permutation(len(queries))[: arguments.queries]
            for mode in ("vector", "text", "hybrid"):
                ranks = []
                for words, right in (queries[number] for number in chosen):
                    hits = searcher.find(Query(words, mode=mode, k=max(AT)))
                    found = [hit.row.path in right for hit in hits]
                    ranks.append(found.index(True) + 1 if any(found) else np.inf)
                recalls = {f"R@{k}": 100 * float(np.mean(np.array(ranks) <= k)) for k in AT}
                figures.append({"queries": group, "count": len(chosen), "mode": mode, **recalls})
                print(figures[-1], flush=True)
                if arguments.keep:
                    keep(arguments.keep, rows=figures)


if __name__ == "__main__":
    main()
