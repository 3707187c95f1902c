"""Nearest-neighbour search: the stores against plain faiss and usearch, in one run.

    python benchmarks/search.py 10000 100000 1000000 [--engines lance,flat] [--keep NAME]
    python benchmarks/search.py 100000 --http CHECKPOINT      # text queries over HTTP, encoder included

Vectors lie around a 32-dimensional sheet in 256 dimensions, in loose groups, as embeddings of pictures do;
queries are drawn as the vectors are. All engines of a size are built in one process and asked each query in
turn, so that other work on the machine weighs on all of them alike. Columns: time to put the vectors in and
build the index; bytes on disk; resident memory that the engine added; p50 and p99 of single queries (k =
10); queries a second from 1 and from 16 clients, and the processor's time for each of the latter, which other
work on the machine lengthens little; recall@10 against exact search. `memory` is the store that
`lance` built, as `unicross serve` opens it, so it comes after `lance`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import keep

D = 256
K = 10
QUERIES = 500
CLIENTS = 16
SECONDS = 5.0
"""Time for which the clients of a throughput measurement ask."""

Search = Callable[[np.ndarray], list[int]]


def make_vectors(count: int, seed: int) -> np.ndarray:
    """float32 [count, D], rows of length 1."""
    shape = np.random.default_rng(0)
    sheet = shape.standard_normal((32, D)).astype(np.float32)
    centres = shape.standard_normal((2000, 32)).astype(np.float32)
    rng = np.random.default_rng(seed)
    vectors = np.empty((count, D), np.float32)
    for start in range(0, count, 100_000):
        some = min(100_000, count - start)
        inner = centres[rng.integers(2000, size=some)] + 0.6 * rng.standard_normal((some, 32), np.float32)
        rows = inner @ sheet + 0.3 * rng.standard_normal((some, D), np.float32)
        vectors[start : start + some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def lance(vectors: np.ndarray, folder: Path) -> Search:
    from unicross.store import Row, StoreInfo, open_store

    is_there = (folder / "store").exists()
    store = open_store(str(folder / "store"), StoreInfo(fingerprint="f", checkpoint="m", dim=D))
    for start in range(0, 0 if is_there else len(vectors), 10_000):
        some = vectors[start : start + 10_000]
        store.upsert(
            [Row(f"{start + i}", "image", f"/p/{start + i}.jpg", vector=v) for i, v in enumerate(some)]
        )
    store.optimize()
    return lambda query: [int(hit.row.id) for hit in store.search(query, K)]


def memory(vectors: np.ndarray, folder: Path) -> Search:
    from unicross.store.memory import MemoryStore

    del vectors
    store = MemoryStore(str(folder.parent / "lance" / "store"))
    store.load()
    return lambda query: [int(hit.row.id) for hit in store.search(query, K)]


def milvus(vectors: np.ndarray, folder: Path) -> Search:
    """A server at UNICROSS_MILVUS (http://host:port); its disk and memory are not seen from here."""
    from unicross.store import Row, StoreInfo, open_store

    address = f"{os.environ['UNICROSS_MILVUS']}/bench{len(vectors)}_{folder.parent.name.replace('-', '_')}"
    store = open_store(address, StoreInfo(fingerprint="f", checkpoint="m", dim=D))
    for start in range(0, len(vectors), 10_000):
        some = vectors[start : start + 10_000]
        store.upsert(
            [Row(f"{start + i}", "image", f"/p/{start + i}.jpg", vector=v) for i, v in enumerate(some)]
        )
    store.optimize()
    return lambda query: [int(hit.row.id) for hit in store.search(query, K)]


def flat(vectors: np.ndarray, folder: Path) -> Search:
    import faiss

    index = faiss.IndexFlatIP(D)
    index.add(vectors)
    faiss.write_index(index, str(folder / "flat.faiss"))
    return lambda query: index.search(query[np.newaxis], K)[1][0].tolist()


def hnsw(vectors: np.ndarray, folder: Path) -> Search:
    import faiss

    index = faiss.IndexHNSWFlat(D, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.hnsw.efSearch = 128
    index.add(vectors)
    faiss.write_index(index, str(folder / "hnsw.faiss"))
    return lambda query: index.search(query[np.newaxis], K)[1][0].tolist()


def usearch(vectors: np.ndarray, folder: Path) -> Search:
    from usearch.index import Index

    index = Index(ndim=D, metric="ip", dtype="f32", connectivity=16, expansion_add=200, expansion_search=128)
    index.add(np.arange(len(vectors)), vectors)
    index.save(str(folder / "index.usearch"))
    return lambda query: index.search(query, K).keys.tolist()


ENGINES = {"lance": lance, "memory": memory, "milvus": milvus, "flat": flat, "hnsw": hnsw, "usearch": usearch}


def measure(names: Sequence[str], count: int, home: Path) -> Iterator[dict[str, Any]]:
    """Build engines, ask them in turn, and give a row of figures for each."""
    vectors, queries = make_vectors(count, 1), make_vectors(QUERIES, 2)
    exact = nearest(vectors, queries)
    searches: dict[str, Search] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        folder = home / name
        folder.mkdir(exist_ok=True)
        before, started = memory_mb(), time.perf_counter()
        searches[name] = ENGINES[name](vectors, folder)
        rows[name] = {
            "engine": name,
            "vectors": count,
            "build_s": time.perf_counter() - started,
            "disk_mb": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6,
            "memory_mb": memory_mb() - before,
        }
    for search in searches.values():
        for query in queries[:20]:
            search(query)
    times, found = {name: [] for name in names}, dict.fromkeys(names, 0)
    for query, best in zip(queries, exact, strict=True):
        for name, search in searches.items():
            started = time.perf_counter()
            ids = search(query)
            times[name].append(time.perf_counter() - started)
            found[name] += len(set(ids) & set(best))
    for name, search in searches.items():
        alone, before = throughput(search, queries, 1), time.process_time()
        together = throughput(search, queries, CLIENTS)
        busy = time.process_time() - before
        yield {
            **rows[name],
            "p50_ms": 1e3 * float(np.percentile(times[name], 50)),
            "p99_ms": 1e3 * float(np.percentile(times[name], 99)),
            "qps_1": alone,
            "qps_16": together,
            "cpu_ms_16": 1e3 * busy / (together * SECONDS),
            "recall@10": found[name] / (K * QUERIES),
        }


def nearest(vectors: np.ndarray, queries: np.ndarray) -> list[list[int]]:
    """Exact answers, by blocks so that a million vectors need no extra memory."""
    best = np.full((len(queries), K), -np.inf, np.float32)
    ids = np.zeros((len(queries), K), np.int64)
    for start in range(0, len(vectors), 50_000):
        scores = queries @ vectors[start : start + 50_000].T  # [Q, D] @ [D, N] -> [Q, N]
        both = np.concatenate([best, scores], axis=1)
        where = np.concatenate([ids, np.tile(np.arange(scores.shape[1]) + start, (len(queries), 1))], axis=1)
        top = np.argpartition(-both, K - 1, axis=1)[:, :K]
        best, ids = np.take_along_axis(both, top, 1), np.take_along_axis(where, top, 1)
    return ids.tolist()


def throughput(search: Callable[[Any], object], queries: Any, clients: int) -> float:
    """Answers a second over SECONDS, from threads that ask without pause."""
    counts = [0] * clients
    end = time.perf_counter() + SECONDS

    def client(number: int) -> None:
        while time.perf_counter() < end:
            search(queries[(number * 31 + counts[number]) % len(queries)])
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


WORDS = ("dog", "child", "boat", "red", "big", "in", "on", "snow", "water", "runs", "two", "with", "street")


def serve(checkpoint: str, home: str, port: int) -> None:
    import uvicorn

    from unicross.search import open_model
    from unicross.serve.app import create_app
    from unicross.store import open_store

    store = open_store(home, in_memory=True)
    app = create_app(open_model(store, Path(checkpoint), "cpu"), store)
    uvicorn.run(app, port=port, log_level="error")


def over_http(checkpoint: str, count: int) -> dict[str, Any]:
    """Text queries against `unicross serve` over a store of `count` vectors, and the store's share alone."""
    from unicross.model import TwoTower
    from unicross.store import Condition, Row, StoreInfo, open_store
    from unicross.store.memory import MemoryStore

    model = TwoTower.load(checkpoint, "cpu")
    rng = np.random.default_rng(0)
    queries = [" ".join(rng.choice(WORDS, 7)) for _ in range(200)]
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=checkpoint, dim=model.dim)
        store = open_store(home, info)
        vectors = rng.standard_normal((count, model.dim)).astype(np.float32)
        vectors[:, : model.dim // 2] *= 0.2
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for start in range(0, count, 10_000):
            some = vectors[start : start + 10_000]
            store.upsert(
                [Row(f"{start + i}", "image", f"/p/{start + i}", vector=v) for i, v in enumerate(some)]
            )
        store.optimize()
        store.close()
        store = MemoryStore(home)
        store.load()
        encoder, alone = [], []
        for words in queries:
            started = time.perf_counter()
            (query,) = model.encode_texts([words])
            encoder.append(time.perf_counter() - started)
            started = time.perf_counter()
            store.search(query, 25, where=[Condition("kind", "=", "image")])
            alone.append(time.perf_counter() - started)
        port = 18_765
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(checkpoint, home, port))
        process.start()

        def ask(words: str) -> None:
            url = f"http://127.0.0.1:{port}/search?q={urllib.parse.quote(words)}"
            with urllib.request.urlopen(url) as answer:
                answer.read()

        try:
            for _ in range(300):
                try:
                    ask("warm")
                    break
                except OSError:
                    time.sleep(0.5)
            times = []
            for words in queries:
                started = time.perf_counter()
                ask(words)
                times.append(time.perf_counter() - started)
            return {
                "vectors": count,
                "http_p50_ms": 1e3 * float(np.percentile(times, 50)),
                "http_p99_ms": 1e3 * float(np.percentile(times, 99)),
                "encoder_p50_ms": 1e3 * float(np.percentile(encoder, 50)),
                "store_p50_ms": 1e3 * float(np.percentile(alone, 50)),
                "http_qps_1": throughput(ask, queries, 1),
                "http_qps_16": throughput(ask, queries, CLIENTS),
            }
        finally:
            process.terminate()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--engines", default="lance,memory,flat,hnsw,usearch")
    parser.add_argument(
        "--home", metavar="DIR", help="keep the table of `lance` there, and use one that is there"
    )
    parser.add_argument("--http", metavar="CHECKPOINT")
    parser.add_argument(
        "--keep", help="keep the figures in experiments/benchmarks.json, anew after every row"
    )
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def row(figures: dict[str, Any]) -> None:
        if not rows:
            print("| " + " | ".join(figures) + " |")
        rows.append(figures)
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in figures.values()]
        print("| " + " | ".join(cells) + " |", flush=True)
        if arguments.keep:
            keep(arguments.keep, rows=rows)

    for size in arguments.sizes:
        if arguments.http:
            row(over_http(arguments.http, size))
            continue
        with tempfile.TemporaryDirectory(prefix="unicross-bench-") as folder:
            for figures in measure(arguments.engines.split(","), size, Path(arguments.home or folder)):
                row(figures)


if __name__ == "__main__":
    main()
