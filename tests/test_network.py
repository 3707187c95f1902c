"""Nothing is sent or fetched but what the user named: whole paths with all other sockets refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import tiny
from fake_model import gallery

GUARD = """
import socket, sys

def refused(*args, **kwargs):
    print("NETWORK", args, file=sys.stderr, flush=True)
    raise OSError("the network was asked for")

class Guarded(socket.socket):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            refused(address)
        return super().connect(address)
    connect_ex = connect
    sendto = refused

socket.socket = Guarded
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refused
from unicross.cli import main
for line in sys.argv[1].splitlines():
    sys.argv = ["unicross", *line.split("|")]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def run_without_network(home: Path, *commands: str) -> str:
    """What the commands say, one after another in a process that has no network."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "UNICROSS_"))
    }
    environment |= {"HF_HOME": str(home / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", GUARD, "\n".join(commands)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert "NETWORK" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_indexing_and_searching_ask_no_network(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    tiny.model().save(model)
    photos, store = gallery(tmp_path / "photos"), tmp_path / "store"
    said = run_without_network(
        tmp_path,
        f"index|{model}|{photos}|--store|{store}",
        f"search|{store}|red",
        f"store|rebuild|{store}/embeddings|{tmp_path}/again",
    )
    assert "6 added" in said


@pytest.mark.slow
def test_training_and_evaluating_ask_no_network(tmp_path: Path, photos: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny.raw_recipe(photos, tiny.ALIGN)))
    run_without_network(tmp_path, f"train|{recipe}|--out|{tmp_path}/run", f"evaluate|{tmp_path}/run")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_the_guard_sees_who_asks(tmp_path: Path) -> None:
    """A hub name is what the user named, so it is looked up; that is what the tests above would see."""
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.raises(AssertionError, match="NETWORK"):
        run_without_network(tmp_path, f"index|some/pair|{tmp_path}|--store|{tmp_path}/store")
