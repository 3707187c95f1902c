"""A real Milvus server for tests, from the PyPI package `milvus`; skips where it is not installed."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

SERVE = """
import sys, milvus
server = milvus.MilvusServer()
server.set_base_dir(sys.argv[1])
server.listen_port = int(sys.argv[2])
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="session")
def milvus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Milvus server that lives as long as the test session, in a process of its own."""
    for package in ("pymilvus", "milvus"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the PyPI package {package} is not installed")
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(tmp_path_factory.mktemp("milvus")), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            if not any(line.strip() == "ready" for line in process.stdout):
                pytest.skip("the Milvus server does not start on this machine")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
