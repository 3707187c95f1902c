"""Index, serve, search, kill, prune and full disks in a loop, and what must hold at the end.

    make soak                                    half an hour
    python tests/soak.py --minutes 2 [--seed 1]

Every turn changes a folder of pictures (with bombs, pipes and torn files among them) and indexes it: to the
end, killed on the way, or with no room for files beyond a size, which writes meet as they meet a full disk.
A server on the same store is asked all the while, by friends and by strangers. Whenever a run came to its
end, the store and its archive must hold just what the folder holds. Ends with a report as JSON, and with
exit code 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import unicross.store.index
from bombs import scan_bomb
from fake_model import FakeModel, paint
from hostile import requests
from unicross.embed import embed_images
from unicross.errors import DataError
from unicross.store import StoreInfo, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.index import index
from unicross.store.lance import LanceStore  # so that a forked process has it at once

__all__ = ["LanceStore"]

INFO = StoreInfo(fingerprint=FakeModel().fingerprint(), checkpoint="m", dim=16)
PICTURES = 120
"""About so many are in the folder."""
GROWTH_MB = 150
"""What the server may take at the end beyond what it took after its first turns."""


class Slow(FakeModel):
    """Takes its time, so that kills meet it at work."""

    def encode_pixels(self, pixels: NDArray[Any]) -> NDArray[Any]:
        time.sleep(0.002 * len(pixels))
        return super().encode_pixels(pixels)


def index_once(photos: str, address: str, started: Any, largest_file: int | None) -> None:
    """What a turn runs in a process of its own; exit code 3 where the disk was full."""
    unicross.store.index.CHUNK = 8
    if largest_file is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail then, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    started.set()
    try:
        store = open_store(address, INFO)
        archive = EmbeddingArchive(Path(address) / "embeddings")
        index(Slow(), Path(photos), store, prune=True, archive=archive, thumbnails=64)
    except Exception as error:
        if largest_file is None:
            raise
        with suppress(OSError):  # a log in a file is limited too
            print(f"full disk: {type(error).__name__}: {str(error)[:150]}", file=sys.stderr, flush=True)
        sys.exit(3)


def serve(address: str, port: int) -> None:
    """The server, in a process of its own."""
    from unicross.serve.app import create_app
    from unicross.serve.connections import run
    from unicross.serve.service import Settings

    patient = Settings(timeout_s=300, decode_s=120)  # a slow machine is no fault
    app = create_app(FakeModel(), open_store(address), patient)
    run(app, host="127.0.0.1", port=port)


class Soak:
    """One run of the loop."""

    def __init__(self, home: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.photos, self.address = home / "photos", str(home / "store")
        self.home = home
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.memory_mb: list[float] = []
        self.faults: list[str] = []
        self.strange = requests(10**9, seed)
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["soak"])
        for number in range(PICTURES):
            self._paint(number)
        self._index(largest_file=None, kill=False)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.server = self.processes.Process(target=serve, args=(self.address, self.port))
        self.server.start()
        self._wait_for_server()

    def run(self, seconds: float) -> dict[str, Any]:
        """Turns until the time is over; the report."""
        end = time.monotonic() + seconds
        while not self.counts["turns"] or time.monotonic() < end:
            self._change()
            kind = self.rng.choice(["kill", "kill", "kill", "full disk", "whole"])
            self._index(
                largest_file=self.rng.choice([2_000, 8_000, 20_000]) if kind == "full disk" else None,
                kill=kind == "kill",
            )
            self._ask()
            self.counts["turns"] += 1
            if kind == "whole":
                self._check()
        self._index(largest_file=None, kill=False)
        self._check()
        self._check_memory()
        self.server.terminate()
        self.server.join(60)
        if self.server.exitcode not in (0, -signal.SIGTERM):
            self.faults.append(f"the server ended with {self.server.exitcode}")
        return {
            **self.counts,
            "answers": {str(status): count for status, count in sorted(self.statuses.items())},
            "server_mb": [round(self.memory_mb[0]), round(self.memory_mb[-1])],
            "faults": self.faults,
        }

    def _paint(self, number: int) -> None:
        colour = tuple(self.rng.randrange(256) for _ in range(3))
        paint(self.photos / str(number % 5) / f"{number:04}.png", colour, (self.rng.randrange(8, 40), 20))

    def _change(self) -> None:
        for _ in range(self.rng.randrange(1, 30)):
            number = self.rng.randrange(2 * PICTURES)
            path = self.photos / str(number % 5) / f"{number:04}.png"
            match self.rng.randrange(12):
                case 0:
                    path.with_suffix(".jpg").write_bytes(scan_bomb(150, side=16))
                case 1 if not path.with_suffix(".gif").exists():
                    os.mkfifo(path.with_suffix(".gif"))
                case 2 if path.exists():
                    path.write_bytes(path.read_bytes()[:50])
                case 3 | 4 | 5:
                    path.unlink(missing_ok=True)
                case _:
                    path.unlink(missing_ok=True)
                    self._paint(number)

    def _index(self, *, largest_file: int | None, kill: bool) -> None:
        started = self.processes.Event()
        process = self.processes.Process(
            target=index_once, args=(str(self.photos), self.address, started, largest_file)
        )
        process.start()
        started.wait(300)
        process.join(self.rng.random() * 0.5 if kill else 600)
        if process.is_alive():
            process.kill()
            process.join()
        match process.exitcode:
            case 0:
                self.counts["indexed"] += 1
            case 3:
                self.counts["full disks"] += 1
            case code if kill and code == -signal.SIGKILL:
                self.counts["kills"] += 1
            case code:
                self.faults.append(f"indexing ended with {code}")

    def _ask(self) -> None:
        for path in ("/search?q=red&k=5", "/browse?k=5", "/info", "/healthz"):
            status, body = self._get(path)
            if status != 200:
                self.faults.append(f"{path}: {status}")
            for hit in json.loads(body).get("hits", ()) if status == 200 else ():
                status, _ = self._get(f"/images/{hit['picture']}/thumbnail")
                if status not in (200, 404, 413, 415, 422):  # gone or torn since
                    self.faults.append(f"a thumbnail: {status}")
        for _ in range(20):
            status = self._send(next(self.strange))
            if status >= 500:
                self.faults.append(f"a stranger's request: {status}")
        self.memory_mb.append(memory_mb(self.server.pid))

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
        except OSError as error:
            self.faults.append(f"{path}: {error}")
            return 0, b"{}"
        self.statuses[answer.status] += 1
        return answer.status, body

    def _send(self, request: bytes) -> int:
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
                connection.sendall(request)
                while b"\r\n" not in answer and (part := connection.recv(4096)):
                    answer += part
        except OSError:
            pass  # it was answered and closed before all of it was sent
        status = int(answer.split()[1]) if answer else 0
        self.statuses[status] += 1
        return status

    def _wait_for_server(self) -> None:
        for _ in range(3000):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server does not start")

    def _check(self) -> None:
        """The store and what its archive rebuilds hold just what the folder holds."""
        paths = sorted(path for path in self.photos.rglob("*") if path.is_file())
        vectors = zip(paths, embed_images(FakeModel(), paths), strict=True)
        expected = {str(path): vector for path, vector in vectors if not isinstance(vector, DataError)}
        torn = {str(path) for path in paths} - expected.keys()  # a row of its former content may be left
        store = open_store(self.address)
        stored = {row.path: row.vector for row in store.scan(vectors=True)}
        archive = EmbeddingArchive(Path(self.address) / "embeddings")
        archived = {row.path: row.vector for rows in archive.replay() for row in rows}
        for name, held in (("store", stored), ("archive", archived)):
            if lost := expected.keys() - held.keys():
                self.faults.append(f"the {name} lacks {len(lost)}: {min(lost)}")
            if extra := held.keys() - expected.keys() - torn:
                self.faults.append(f"the {name} has {len(extra)} too many: {min(extra)}")
            wrong = [
                path
                for path in expected.keys() & held.keys()
                if not np.array_equal(held[path], expected[path])
            ]
            if wrong:
                self.faults.append(f"the {name} has {len(wrong)} other vectors: {wrong[0]}")
        if stored.keys() != archived.keys():
            self.faults.append("store and archive differ")
        kept = {id: (size, mtime) for id, (size, mtime, _) in store.thumbnails.states().items()}
        rows = {row.id: row for row in store.scan()}
        if superfluous := kept.keys() - rows.keys():
            self.faults.append(f"{len(superfluous)} thumbnails of no picture")
        wrong = [row.path for row in rows.values() if kept.get(row.id) != (row.size, row.mtime)]
        if lacking := expected.keys() & set(wrong):
            self.faults.append(f"{len(lacking)} pictures lack a thumbnail of their own: {min(lacking)}")
        store.close()
        self.counts["checks"] += 1

    def _check_memory(self) -> None:
        early = max(self.memory_mb[: max(1, len(self.memory_mb) // 3)])
        if self.memory_mb[-1] - early > GROWTH_MB:
            self.faults.append(f"the server grew from {early:.0f} to {self.memory_mb[-1]:.0f} MB")


def memory_mb(pid: int | None) -> float:
    """Resident memory of a process; 0 where the system does not tell it so."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="unicross-soak-") as home:
        report = Soak(Path(home), arguments.seed).run(60 * arguments.minutes)
    print(json.dumps(report, indent=1))
    sys.exit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
