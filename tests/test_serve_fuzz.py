"""Hostile requests against a real server process: no 5xx, no crash, memory flat."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest

from hostile import requests
from milvus_server import free_port

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

COUNT = int(os.environ.get("UNICROSS_FUZZ", "600"))
"""Requests; UNICROSS_FUZZ=10000 for the long run."""

SERVE = """
import sys
from pathlib import Path
import uvicorn
from fake_model import FakeModel
from serving import make_store
from unicross.serve.app import create_app
uvicorn.run(create_app(FakeModel(), make_store(Path(sys.argv[1]))), port=int(sys.argv[2]), log_level="error")
"""


def ask(port: int, request: bytes) -> int:
    """The status of the answer; 0 where the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with suppress(OSError):  # the server may have answered and closed already
            connection.sendall(request)
        answer = b""
        try:
            while b"\r\n" not in answer and (part := connection.recv(4096)):
                answer += part
        except OSError:
            return 0
    return int(answer.split()[1]) if answer else 0


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_hostile_requests_do_no_harm(tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVE, str(tmp_path), str(port)]
    log = tmp_path / "server.log"
    with log.open("wb") as sink, subprocess.Popen(command, env=environment, stderr=sink) as server:
        try:
            good = b"GET /search?q=red&k=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            started = False
            for _ in range(3000):
                try:
                    started = ask(port, good) == 200
                    break
                except ConnectionRefusedError:
                    time.sleep(0.2)
            assert started
            statuses: Counter[int] = Counter()
            memory = []
            stream = requests(COUNT)
            with ThreadPoolExecutor(4) as pool:
                while chunk := list(islice(stream, 200)):
                    answers = list(pool.map(lambda request: ask(port, request), chunk))
                    statuses.update(answers)
                    failed = [
                        request[:300] for request, status in zip(chunk, answers, strict=True) if status >= 500
                    ]
                    assert failed == []
                    assert server.poll() is None
                    memory.append(memory_mb(server.pid))
            assert ask(port, good) == 200
            assert {200, 400, 404, 405, 413, 415, 422} <= statuses.keys()
            print(dict(statuses), [round(size) for size in memory])
            # What one picture of the largest size takes comes and goes; beyond that nothing may pile up.
            settled = memory[len(memory) // 3 :]
            assert settled[-1] - settled[0] < 60
        finally:
            server.terminate()
            server.wait(60)
    assert server.returncode in (0, -15)
    assert "Traceback" not in log.read_text()
