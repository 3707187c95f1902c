"""Models by their names on the hub: fetched once, read without it later, and nothing is asked for besides."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fake_hub import hub_with
from pretrained import make_pair

SCRIPT = """
from unicross.errors import CheckpointError
from unicross.model import TwoTower
try: print(TwoTower.load("me/pair").fingerprint())
except CheckpointError as error: print(error)
"""


def load_by_name(home: Path, **environment: str) -> str:
    """What loading `me/pair` says, in a process of its own: the hub's address is read when it begins."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DISABLE_"))}
    called = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=clean | {"HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment,
    )
    assert called.returncode == 0, called.stderr
    return called.stdout.strip()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pair("clip", tmp_path_factory.mktemp("pairs") / "clip")


def test_a_pair_is_fetched_once_and_then_read_offline(pair: Path, tmp_path: Path) -> None:
    from unicross.model import TwoTower

    with hub_with("models/me/pair", pair) as (address, asked):
        assert load_by_name(tmp_path, HF_ENDPOINT=address) == TwoTower.load(pair).fingerprint()
    assert any("model.safetensors" in request for request in asked)
    assert load_by_name(tmp_path, HF_HUB_OFFLINE="1") == TwoTower.load(pair).fingerprint()


def test_pickled_weights_are_not_fetched_and_nobody_is_asked_to_convert_them(
    pair: Path, tmp_path: Path
) -> None:
    shutil.copytree(pair, tmp_path / "pickled")
    os.rename(tmp_path / "pickled/model.safetensors", tmp_path / "pickled/pytorch_model.bin")
    with hub_with("models/me/pair", tmp_path / "pickled") as (address, asked):
        said = load_by_name(tmp_path, HF_ENDPOINT=address)
    assert "only pickled ones are there (pytorch_model.bin)" in said
    assert "hf download me/pair --local-dir FOLDER" in said
    assert not [request for request in asked if "GET" in request and "pytorch_model" in request]
    assert not any(word in request for request in asked for word in ("commits", "discussions", "POST")), asked
