"""Hybrid search against vectors alone and words alone, where pictures have texts.

    python benchmarks/hybrid.py CHECKPOINT --flickr8k ROOT [--keep NAME]
    python benchmarks/hybrid.py CHECKPOINT --emoji ROOT [--keep NAME]

Flickr8k: one caption of every picture of dev asks; it is stored with the four others. Emoji: pictures of one
maker are stored with names, and what asks has one right picture or more. "Keywords" of a language ask where
the names in all six languages are stored, "names" of a language where the names in the five others are, so
that words match only where languages share them. Recall at k in percent: queries of which a right picture
is among the first k.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from embeddings import Remembered, embed_split
from experiments import keep
from unicross.embed import Encoder, embed_images
from unicross.fusion import unquoted
from unicross.hybrid import Mode
from unicross.model import TwoTower
from unicross.query import Query
from unicross.search import Searcher
from unicross.store import Row, StoreInfo, make_id, open_store

AT = (1, 5, 10)
LANGUAGES = ("en", "de", "fr", "es", "zh", "ja")
STYLE = "noto"


@dataclass(frozen=True)
class Task:
    """Pictures with texts, and queries with the pictures that answer them."""

    name: str
    texts: dict[str, list[str]]
    """By the picture's path."""
    queries: list[tuple[str, set[str]]]


def flickr8k(model: TwoTower, root: Path) -> tuple[dict[str, np.ndarray], list[Task]]:
    """The pictures' vectors by path, and what is asked of them."""
    dev = embed_split(model, root, "dev", captions_each=5)
    texts: dict[str, list[str]] = {path: [] for path in dev.pictures}
    for caption, owner in zip(dev.captions, dev.owner, strict=True):
        texts[dev.pictures[owner]].append(caption)
    # without their quotes, as what stands in quotes must match word for word
    queries = [(unquoted(own[0]), {path}) for path, own in texts.items()]
    stored = {path: own[1:] for path, own in texts.items()}
    return dict(zip(dev.pictures, dev.images, strict=True)), [Task("captions", stored, queries)]


def emoji(model: TwoTower, root: Path) -> tuple[dict[str, np.ndarray], list[Task]]:
    """The pictures' vectors by path, and what is asked of them."""
    records = [json.loads(line) for line in (root / "items.jsonl").read_text().splitlines()]
    dev = {
        str(root / record["images"][STYLE]): record
        for record in records
        if record["split"] == "dev" and STYLE in record["images"]
    }
    tasks = []
    for language in LANGUAGES:
        tags = defaultdict(set)
        for path, record in dev.items():
            for tag in record[language]["tags"]:
                tags[tag].add(path)
        tasks.append(Task(f"keywords, {language}", names(dev, LANGUAGES), list(tags.items())))
    for language in LANGUAGES:
        labels = defaultdict(set)
        for path, record in dev.items():
            labels[record[language]["label"]].add(path)
        others = [other for other in LANGUAGES if other != language]
        tasks.append(Task(f"names, {language}", names(dev, others), list(labels.items())))
    return dict(zip(dev, embed_images(model, list(dev)), strict=True)), tasks


def names(records: Mapping[str, dict[str, dict[str, str]]], languages: Sequence[str]) -> dict[str, list[str]]:
    return {path: [record[of]["label"] for of in languages] for path, record in records.items()}


def searcher_of(
    home: str, model: Encoder, texts: dict[str, list[str]], images: dict[str, np.ndarray]
) -> Searcher:
    """A store of pictures, whose vectors `images` has by path, and of their texts.

    Texts have no vectors of their own here: what is asked for are pictures.
    """
    rows = []
    for path, own in texts.items():
        picture = Row(make_id("image", path), "image", path, caption=own[0], vector=images[path])
        rows.append(picture)
        for text in own:
            rows.append(replace(picture, id=make_id("text", path, text), kind="text", caption=text))
    store = open_store(home, StoreInfo(fingerprint=model.fingerprint(), checkpoint="", dim=model.dim))
    store.upsert(rows)
    store.optimize()
    return Searcher(model, store)


def recalls(searcher: Searcher, queries: list[tuple[str, set[str]]], mode: Mode) -> dict[str, float]:
    ranks = []
    for words, right in queries:
        hits = searcher.find(Query(words, mode=mode, k=max(AT)))
        found = [hit.row.path in right for hit in hits]
        ranks.append(found.index(True) + 1 if any(found) else np.inf)
    return {f"R@{k}": 100 * float(np.mean(np.array(ranks) <= k)) for k in AT}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--flickr8k", type=Path)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--queries", type=int, default=300, help="of a task at most")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    model = TwoTower.load(arguments.checkpoint, "cpu")
    task_of, root = (flickr8k, arguments.flickr8k) if arguments.flickr8k else (emoji, arguments.emoji)
    images, tasks = task_of(model, root)
    figures = []
    for task in tasks:
        chosen = np.random.default_rng(0).permutation(len(task.queries))[: arguments.queries]
        queries = [task.queries[number] for number in chosen]
        words = [text for text, _ in queries]
        encoder = Remembered(model, words, model.encode_texts(words))
        with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
            searcher = searcher_of(f"{home}/store", encoder, task.texts, images)
            for mode in get_args(Mode):
                figures.append({"queries": task.name, "count": len(chosen), "mode": mode})
                figures[-1] |= recalls(searcher, queries, mode)
                print(figures[-1], flush=True)
                if arguments.keep:
                    keep(arguments.keep, rows=figures)


if __name__ == "__main__":
    main()
