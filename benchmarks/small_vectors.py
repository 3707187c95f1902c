"""Vectors in fewer numbers and fewer bits: memory, recall and time, as they are and scored again.

    python benchmarks/small_vectors.py CHECKPOINT FLICKR8K [--count 1000000] [--keep NAME]

Queries are the first captions of dev. Without --count they search 3,000 pictures of train and the 1,000
of dev. With it they
search as many vectors that stand in for a large store: the picture vectors, each with noise of the
pictures' own covariance. Vectors are turned to their principal axes, as `unicross index --dim` turns them:
that changes no score, and the first numbers say most. `first 128` cuts vectors that were not turned.

Forms: float32; the first numbers of it, made to length 1 again; int8 (faiss's 8-bit quantiser); signs, one
bit a number after a random turn, compared by Hamming distance. All vectors are compared, or with "cells"
those of some of the lists of faiss's IVF index, as the store in memory does it. The first candidates by the
small vectors, a multiple of k, are scored again by the full ones, which lie on the disk. Recall is that of
the 10 best by full vectors, of all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from embeddings import TRAIN, embed_split
from experiments import keep
from search import K, nearest
from unicross.embed import Vectors
from unicross.model import TwoTower
from unicross.store.memory import PROBED, TRAINED_ON

NOISE = 0.5
"""Of the stand-in vectors, against the deviation of the pictures'."""

AGAIN = (1, 4, 16)
"""Multiples of k that are scored again; 1 is no scoring again."""

BLOCK = 50_000


def turned(vectors: Vectors, others: Vectors) -> tuple[Vectors, Vectors]:
    """Both [N, D] and [M, D] in the principal axes of the first."""
    axes = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1]  # [D, N] @ [N, D] -> [D, D]
    return np.ascontiguousarray(vectors @ axes), np.ascontiguousarray(others @ axes)


def unit(vectors: Vectors) -> Vectors:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def write_stand_in(pictures: Vectors, count: int, path: Path) -> Vectors:
    """`count` vectors like those of the pictures [N, D], in a file; they are read from there when needed."""
    rng = np.random.default_rng(0)
    factor = np.linalg.cholesky(np.cov(pictures.T) + 1e-9 * np.eye(pictures.shape[1])).astype(np.float32)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (count, pictures.shape[1]))
    for start in range(0, count, BLOCK):
        some = pictures[rng.integers(len(pictures), size=min(BLOCK, count - start))]
        noise = rng.standard_normal(some.shape, np.float32) @ factor.T  # [B, D] @ [D, D] -> [B, D]
        file[start : start + len(some)] = unit(some + NOISE * noise)
    file.flush()
    return np.load(path, mmap_mode="r")


def forms(vectors: Vectors, whole: Vectors | None) -> Iterator[tuple[str, int, Any]]:
    """Name, how many numbers of a vector are looked at, and the index of each small form.

    `whole` [N, D]: vectors that were not turned, where they are looked at too.
    """
    size = vectors.shape[1]
    metric, eight = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
    yield "float32", size, faiss.IndexFlatIP(size)
    for fewer in (size // 2, size // 4):
        yield f"float32, {fewer} numbers", fewer, faiss.IndexFlatIP(fewer)
    yield "int8", size, faiss.IndexScalarQuantizer(size, eight, metric)
    yield f"int8, {size // 2} numbers", size // 2, faiss.IndexScalarQuantizer(size // 2, eight, metric)
    yield "signs", size, faiss.IndexBinaryFlat(size)
    if whole is not None:
        return
    cells = int(len(vectors) ** 0.5)
    for name, fewer, kind in (("float32", size, "Flat"), ("int8", size, "SQ8"), ("int8", size // 2, "SQ8")):
        index = faiss.index_factory(fewer, f"IVF{cells},{kind}", metric)
        index.nprobe = PROBED
        yield f"{name}, {fewer} numbers, cells", fewer, index


@cache
def rotation(size: int) -> Vectors:
    """A random turn [D, D]: in principal axes, most numbers would have one sign nearly always."""
    return np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0].astype(np.float32)


def signs(vectors: Vectors) -> np.ndarray:
    """A bit for each number: [N, D] -> uint8 [N, D / 8]."""
    return np.packbits(vectors @ rotation(vectors.shape[1]) > 0, axis=1)


def fill(index: Any, vectors: Vectors, numbers: int) -> None:
    rng = np.random.default_rng(0)
    if not index.is_trained:
        sample = rng.choice(len(vectors), min(len(vectors), TRAINED_ON * int(len(vectors) ** 0.5)), False)
        index.train(unit(vectors[np.sort(sample), :numbers]))
    for start in range(0, len(vectors), BLOCK):
        some = unit(vectors[start : start + BLOCK, :numbers])
        index.add(signs(some) if isinstance(index, faiss.IndexBinaryFlat) else some)


def measure(
    index: Any, vectors: Vectors, queries: Vectors, numbers: int, exact: list[list[int]]
) -> dict[str, float]:
    """Recall by multiples of k that are scored again, and the median of ms with the largest multiple."""
    times, found = [], dict.fromkeys(AGAIN, 0)
    for query, best in zip(queries, exact, strict=True):
        started = time.perf_counter()
        short = unit(query[np.newaxis, :numbers])
        if isinstance(index, faiss.IndexBinaryFlat):
            short = signs(short)
        ids = index.search(short, AGAIN[-1] * K)[1][0]
        scores = vectors[ids] @ query  # [n, D] @ [D] -> [n]
        first = ids[np.argsort(-scores)[:K]]
        times.append(time.perf_counter() - started)
        for again in AGAIN[1:-1]:
            some = again * K
            found[again] += len(set(best) & set(ids[:some][np.argsort(-scores[:some])[:K]].tolist()))
        found[1] += len(set(best) & set(ids[:K].tolist()))
        found[AGAIN[-1]] += len(set(best) & set(first.tolist()))
    recalls = {f"recall_{again}": count / (K * len(queries)) for again, count in found.items()}
    return recalls | {"p50_ms": 1e3 * float(np.median(times))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("flickr8k")
    parser.add_argument("--count", type=int)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--forms", default="", help="only those with this in their name")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    model = TwoTower.load(arguments.checkpoint, "cpu")
    dev = embed_split(model, arguments.flickr8k, "dev", captions_each=5)
    train = embed_split(model, arguments.flickr8k, "train", captions_each=1, first=TRAIN)
    asked = dev.texts[np.unique(dev.owner, return_index=True)[1]][: arguments.queries]
    pictures, queries = turned(np.concatenate([train.images, dev.images]), asked)
    figures = []
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        vectors, whole = pictures, np.concatenate([train.images, dev.images])
        if arguments.count:
            vectors, whole = write_stand_in(pictures, arguments.count, Path(home) / "vectors.npy"), None
        exact = nearest(vectors, queries)
        tried = [(name, numbers, index, vectors, queries) for name, numbers, index in forms(vectors, whole)]
        if whole is not None:
            tried.append(("first 128", 128, faiss.IndexFlatIP(128), whole, asked))
        for name, numbers, index, stored, asking in tried:
            if arguments.forms not in name:
                continue
            fill(index, stored, numbers)
            path = f"{home}/index"
            write = (
                faiss.write_index_binary if isinstance(index, faiss.IndexBinaryFlat) else faiss.write_index
            )
            write(index, path)
            memory_mb = Path(path).stat().st_size / 1e6
            figures.append({"form": name, "memory_mb": memory_mb})
            figures[-1] |= measure(index, stored, asking, numbers, exact)
            print(figures[-1], flush=True)
            if arguments.keep:
                keep(arguments.keep, rows=figures)
            index.reset()


if __name__ == "__main__":
    main()
