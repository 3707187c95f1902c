"""A server with more clients than it can serve: how long those accepted wait, and how soon the others are
told.

    python benchmarks/overload.py CHECKPOINT [--rows 10000] [--clients 1,16,100,500] [--seconds 60]
        [--refusing | --canned] [--keep NAME]

Every client asks for words, one question after another, each over a connection of its own; one that is shed
waits for as long as `Retry-After` says. The server runs in a process of its own, on the same machine.
Columns: questions answered a second; p50 and p99 of those answered and of those shed, in milliseconds; the
share of questions that were shed; p50 and p99 of what `Retry-After` said, in seconds; what else was answered,
by status, of which there should be nothing.

With `--refusing` the server refuses everything, and every client asks once, all at the same time: the median
of seven such bursts, after one to warm up. With `--canned` the same is asked of a server of a few lines that
answers whatever comes with the same bytes: that is what the clients take themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import re
import selectors
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


def serve_canned(port: int) -> None:
    """The least that a server of asyncio can do."""
    answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

    class Canned(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            del data
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.write(answer)
            self.transport.close()

    async def run() -> None:
        await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", port, backlog=2048)
        await asyncio.Event().wait()

    asyncio.run(run())


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


def request(words: str) -> bytes:
    target = f"/search?q={urllib.parse.quote(words)}"
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


async def ask(port: int, words: str) -> tuple[int, float, float]:
    """The status of an answer, the time until all of it was there, and what `Retry-After` says, in
    seconds."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(words))
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


def burst(port: int, clients: int) -> list[float]:
    """All clients ask once and are refused; p50 and p99 until they are told, in milliseconds.

    Bare sockets, as asyncio's would take longer than the server.
    """
    times, answers = [], dict[socket.socket, bytes]()
    with selectors.DefaultSelector() as asking:
        for _ in range(clients):
            started = time.perf_counter()
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(request(WORDS[0]))
            asking.register(client, selectors.EVENT_READ, (client, started))
        while asking.get_map():
            for key, _ in asking.select():
                client, started = key.data
                if part := client.recv(4096):
                    answers[client] = answers.get(client, b"") + part
                    continue
                assert answers[client].startswith(b"HTTP/1.1 503 ")
                times.append(time.perf_counter() - started)
                asking.unregister(client)
                client.close()
    return [1e3 * float(np.percentile(times, p)) for p in (50, 99)]


def refused(port: int, clients: int) -> dict[str, Any]:
    """A row of figures of a server that refuses everything."""
    p50, p99 = np.median([burst(port, clients) for _ in range(8)][1:], axis=0)
    return {"clients": clients, "refused_p50_ms": float(p50), "refused_p99_ms": float(p99)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--clients", default="1,16,100,500")
    parser.add_argument("--seconds", type=float, default=60)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--refusing", action="store_true", help="a server that refuses everything")
    kind.add_argument("--canned", action="store_true", help="a server that does nothing else at all")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home, socket.socket() as probe:
        if not arguments.canned:
            fill(arguments.checkpoint, home, arguments.rows)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        context = multiprocessing.get_context("spawn")
        process = (
            context.Process(target=serve_canned, args=(port,))
            if arguments.canned
            else context.Process(target=serve, args=(arguments.checkpoint, home, port, arguments.refusing))
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
                    if arguments.refusing or arguments.canned
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
