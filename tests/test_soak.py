"""The loop of `make soak`, for a while; UNICROSS_SOAK says for how many minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MINUTES = os.environ.get("UNICROSS_SOAK", "0.3")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="limits of files and memory are those of Linux")
def test_everything_at_once_loses_nothing() -> None:
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    script = Path(__file__).parent / "soak.py"
    done = subprocess.run([sys.executable, script, "--minutes", MINUTES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["faults"] == []
    assert report["checks"] >= 1
