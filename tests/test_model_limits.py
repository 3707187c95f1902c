"""Checkpoints that ask for too much, or are not finite: a sentence before anything is built of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from fake_model import INFO, FakeModel, gallery
from unicross.errors import CheckpointError, StoreError
from unicross.model import TwoTower, limits
from unicross.model.limits import check_weights
from unicross.query import Query
from unicross.search import Searcher
from unicross.store import Row, open_store
from unicross.store.index import index


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tiny.model().save(folder)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        TwoTower.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("half", "changes", "said"),
    [
        ("image", {"num_hidden_layers": 10**7}, "num_hidden_layers of 10000000"),
        ("image", {"patch_size": 1, "image_size": 4096}, "16777216 patches"),
        ("image", {"patch_size": 0}, "patch_size of 0"),
        ("image", {"hidden_size": 2**31}, "hidden_size of 2147483648"),
        ("text", {"vocab_size": 10**9}, "vocab_size of 1000000000"),
        (
            "text",
            {"num_hidden_layers": 400, "hidden_size": 4096, "num_attention_heads": 4},
            "do not belong together",
        ),
        ("text", {"num_hidden_layers": -3}, "num_hidden_layers of -3"),
        ("text", {"vocab_size": 5, "pad_token_id": 0}, "its tokenizer makes ids up to"),
    ],
)
def test_an_absurd_configuration_is_refused_before_it_is_built(
    checkpoint: Path, half: str, changes: dict[str, Any], said: str
) -> None:
    edit(checkpoint / half / "config.json", **changes)
    assert said in refusal(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(checkpoint: Path, value: float) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    name = sorted(name for name in tensors if tensors[name].ndim == 2)[3]
    tensors[name][0, 0] = value
    save_file(tensors, path)
    assert f"the weight {name} is not finite" in refusal(checkpoint)


@pytest.mark.parametrize(
    "rules",
    [{"std": [0.2, 0.0, 0.2]}, {"std": [1, -1, 1]}, {"mean": [float("nan"), 0, 0]}, {"std": [1e400, 1, 1]}],
)
def test_a_preparation_that_makes_no_numbers_is_refused(checkpoint: Path, rules: dict[str, Any]) -> None:
    edit(checkpoint / "model.json", **rules)
    assert "pictures cannot be prepared" in refusal(checkpoint)


def sparse_weights(path: Path, size: int) -> None:
    """A file of weights that claims gigabytes and holds a page."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


def test_weight_files_that_lie_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(limits, "memory_of_machine", lambda: 2**34)
    sparse_weights(path, 2**35)
    with pytest.raises(CheckpointError, match="this machine's memory"):
        check_weights(path)
    sparse_weights(path, 1000)
    assert check_weights(path) == {"a": (1000,)}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="only partly there"):
        check_weights(path)
    for damage in (b"", b"\xff" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b'{"a": {}}'):
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match="damaged"):
            check_weights(path)


class Mad(FakeModel):
    """Gives vectors that are no numbers."""

    def encode_pixels(self, pixels: Any) -> Any:
        return np.full_like(super().encode_pixels(pixels), np.nan)

    def encode_texts(self, texts: Any) -> Any:
        return np.full_like(super().encode_texts(texts), np.inf)


def test_nothing_that_is_not_finite_is_stored_or_asked(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), INFO)
    with pytest.raises(CheckpointError, match="not finite"):
        index(Mad(), gallery(tmp_path / "photos"), store)
    bad = np.full(INFO.dim, np.nan, np.float32)
    with pytest.raises(StoreError, match="not finite"):
        store.upsert([Row("a", "image", "/a.jpg", vector=bad)])
    assert store.count() == 0
    index(FakeModel(), tmp_path / "photos", store)
    with pytest.raises(CheckpointError, match="not finite"):
        Searcher(Mad(), store).find(Query("red"))


def test_a_model_that_overflows_gives_no_vectors() -> None:
    model = tiny.model()
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter.fill_(3e38)
    with pytest.raises(CheckpointError, match="not finite"):
        model.encode_texts(["a"])
