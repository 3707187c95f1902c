"""Every command that writes, killed and run again; UNICROSS_KILLS says how often at least."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = os.environ.get("UNICROSS_KILLS", "10")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes are forked and killed as POSIX has it")
def test_commands_killed_and_run_again_leave_what_an_unbroken_one_does() -> None:
    script = Path(__file__).parent / "kills.py"
    done = subprocess.run([sys.executable, script, "--kills", KILLS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert json.loads(done.stdout)["total"] >= int(KILLS)
