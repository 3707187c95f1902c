"""A server with more clients than it can serve: how long those accepted wait, and how soon the others are
told.

    python benchmarks/overload.py CHECKPOINT [--rows 10000] [--clients 1,16,100,500] [--seconds 60]
        [--refusing] [--keep NAME]

Every client asks for words, one question after another, each over a connection of its own; one that is shed
waits for as long as `Retry-After` says. The server runs in a process of its own, on the same machine.
Columns: questions answered a second; p50 and p99 of those answered and of those shed, in milliseconds; the
share of questions that were shed; p50 and p99 of what `Retry-After` said, in seconds; what else was answered,
by status, of which there should be nothing.

With `--refusing` the server refuses everything, and every client asks once, all at the same time: the median
of seven such bursts, after one to warm up.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import re
import socket
import tempfile
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from experiments import keep

WORDS = [
    "a dog in the snow",
    "two children play",
    "red boat on a lake",
    "black cat",
    "street at night",
    "old man",
]


def serve(checkpoint: str, home: str, port: int, refusing: bool) -> None:
    from unicross.search import open_model
    from unicross.serve.app import create_app
    from unicross.serve.connections import run
    from unicross.serve.service import Settings
    from unicross.store import open_store

    store = open_store(home)
    settings = Settings(max_waiting=0) if refusing else None
    app = create_app(open_model(store, Path(checkpoint), "cpu"), store, settings)
    run(app, host="127.0.0.1", port=port)


def fill(checkpoint: str, home: str, rows: int) -> None:
    """A store of that many drawn vectors."""
    from unicross.model import TwoTower
    from unicross.store import Row, StoreInfo, open_store

    model = TwoTower.load(checkpoint, "cpu")
    vectors = np.random.default_rng(0).standard_normal((rows, model.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=checkpoint, dim=model.dim)
    store = open_store(home, info)
    store.upsert([Row(str(i), "image", f"/p/{i}.jpg", vector=vector) for i, vector in enumerate(vectors)])
    store.optimize()
    store.close()


async def ask(port: int, words: str) -> tuple[int, float, float]:
    """The status of an answer, the time until all of it was there, and what `Retry-After` says, in
    seconds."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    target = f"/search?q={urllib.parse.quote(words)}"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    took = time.perf_counter() - started
    wait = re.search(rb"(?im)^retry-after: (\d+)\r$", answer)
    return int(answer.split()[1]), took, float(wait[1]) if wait else 0.0


async def crowd(port: int, clients: int, seconds: float) -> dict[str, Any]:
    """Many clients at once; a row of figures."""
    end = time.perf_counter() + seconds
    times: dict[int, list[float]] = {200: [], 503: []}
    others: Counter[int] = Counter()
    waits: list[float] = []

    async def client(number: int) -> None:
        turn = number
        while time.perf_counter() < end:
            status, took, wait = await ask(port, WORDS[turn % len(WORDS)])
            turn += 1
            if status in times:
                times[status].append(took)
            else:
                others[status] += 1
            if status == 503:
                waits.append(wait)
                if time.perf_counter() + wait >= end:
                    return
                await asyncio.sleep(wait)

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    took = time.perf_counter() - started
    answered, shed = times[200], times[503]
    return {
        "clients": clients,
        "qps": len(answered) / took,
        **{f"answered_p{p}_ms": 1e3 * float(np.percentile(answered or [np.nan], p)) for p in (50, 99)},
        **{f"shed_p{p}_ms": 1e3 * float(np.percentile(shed or [np.nan], p)) for p in (50, 99)},
        "shed": len(shed) / max(1, len(answered) + len(shed)),
        **{f"told_p{p}_s": float(np.percentile(waits or [np.nan], p)) for p in (50, 99)},
        "others": dict(others),
    }


async def burst(port: int, clients: int) -> list[float]:
    """All clients ask once and are refused; p50 and p99 until they are told, in milliseconds."""
    answers = await asyncio.gather(*(ask(port, WORDS[0]) for _ in range(clients)))
    assert all(status == 503 for status, _, _ in answers)
    return [1e3 * float(np.percentile([took for _, took, _ in answers], p)) for p in (50, 99)]


def refused(port: int, clients: int) -> dict[str, Any]:
    """A row of figures of a server that refuses everything."""
    bursts = [asyncio.run(burst(port, clients)) for _ in range(8)][1:]
    p50, p99 = np.median(bursts, axis=0)
    return {"clients": clients, "refused_p50_ms": float(p50), "refused_p99_ms": float(p99)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--clients", default="1,16,100,500")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--refusing", action="store_true", help="a server that refuses everything")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home, socket.socket() as probe:
        fill(arguments.checkpoint, home, arguments.rows)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(arguments.checkpoint, home, port, arguments.refusing)
        )
        process.start()
        try:
            while True:
                try:
                    asyncio.run(ask(port, "a dog"))
                    break
                except OSError:
                    time.sleep(0.2)
            figures = []
            for clients in map(int, arguments.clients.split(",")):
                figures.append(
                    refused(port, clients)
                    if arguments.refusing
                    else asyncio.run(crowd(port, clients, arguments.seconds))
                )
                print(figures[-1], flush=True)
                if arguments.keep:
                    keep(arguments.keep, rows=figures)
        finally:
            process.terminate()
            process.join()


if __name__ == "__main__":
    main()
