"""Small things for tests: a data set of coloured squares, a recipe with tiny random towers, its model.

Everything is deterministic and small: an epoch over 24 pairs takes a fraction of a second on one core.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unicross.config import Recipe
from unicross.events import Event
from unicross.model import TwoTower
from unicross.recipe import make_recipe

# Tests, and the processes of theirs that import this, compute in float32 also where the CPU multiplies bf16.
torch.cpu.get_capabilities = dict

COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 70, 210),
    "yellow": (230, 215, 60),
    "purple": (140, 60, 170),
    "white": (240, 240, 240),
}
PLACES = {"left": (2, 12), "right": (22, 12), "top": (12, 2), "bottom": (12, 22)}
"""Corner (x, y) of a 12 pixel square on a picture of 36."""
GROUNDS = {"black": (10, 10, 10), "grey": (120, 120, 120), "brown": (110, 70, 40)}

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
"""The size of an encoder, in the words of most configurations."""
VIT: dict[str, Any] = {"model_type": "vit"} | SMALL | {"patch_size": 8}
BERT: dict[str, Any] = {"model_type": "bert"} | SMALL | {"vocab_size": 200, "max_position_embeddings": 64}
DISTIL: dict[str, Any] = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
"""The same size, as DistilBERT says it."""
MODEL: dict[str, Any] = {
    "image": VIT,
    "text": BERT,
    "image_pool": "mean",
    "dim": 16,
    "uni_dim": 16,
    "image_size": 32,
}
UNI = {"name": "uni", "epochs": 1, "losses": {"image_image": 1.0, "text_text": 1.0}}
ALIGN = {"name": "align", "epochs": 1, "losses": {"image_text": 1.0}}
SHARPEN = {
    "name": "sharpen",
    "epochs": 1,
    "losses": {"image_text": 1.0, "image_image": 0.3, "text_text": 0.1},
    "batches": {"kind": "clustered", "mask_above": 0.95},
}


def write_set(root: Path, train: int = 24, val: int = 8) -> Path:
    """`train` and `val` pictures of a square on a ground, three captions each, as a captions.csv."""
    (root / "images").mkdir(parents=True)
    scenes = list(itertools.product(COLOURS, PLACES, GROUNDS))
    order = np.random.default_rng(0).permutation(len(scenes))[: train + val]
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for number, scene in enumerate(order):
            colour, place, ground = scenes[scene]
            picture = Image.new("RGB", (36, 36), GROUNDS[ground])
            x, y = PLACES[place]
            picture.paste(COLOURS[colour], (x, y, x + 12, y + 12))
            picture.save(root / "images" / f"{number:03d}.png")
            for caption in (
                f"a {colour} square at the {place} of a {ground} ground",
                f"there is something {colour} at the {place}, all else is {ground}",
                f"{ground} ground with a {colour} block, {place}",
            ):
                writer.writerow([f"{number:03d}.png", caption, "train" if number < train else "val"])
    return root


def raw_recipe(root: Path | str, *stages: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """A tiny recipe as plain data; `sections` are laid over `model`, `data`, `train` or set others."""
    raw: dict[str, Any] = {
        "seed": 0,
        "model": MODEL | sections.pop("model", {}),
        "data": {"root": str(root), "max_tokens": 24} | sections.pop("data", {}),
        "train": {"batch_size": 8, "precision": "fp32"} | sections.pop("train", {}),
        "optim": {"image_lr": 1e-3, "text_lr": 1e-3},
        "stages": list(stages) or [UNI, ALIGN, SHARPEN],
    }
    return raw | sections


def recipe(root: Path | str, *stages: dict[str, Any], **sections: Any) -> Recipe:
    return make_recipe(raw_recipe(root, *stages, **sections))


def model(captions: Sequence[str] = ("a red square", "a blue block"), **changes: Any) -> TwoTower:
    """A tiny model in eval mode; `changes` are laid over MODEL."""
    config = recipe("nowhere", model=changes).model
    return TwoTower.create(config, max_tokens=24, captions=captions).eval()


def notes(run: Path) -> list[str]:
    """The notes of a run but those on how pictures and texts are prepared."""
    texts = [event["text"] for event in events(run, "note")]
    return [text for text in texts if not text.startswith(("pictures: ", "texts: "))]


def events(run: Path, kind: str) -> list[Event]:
    """The events of one kind in a run's metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]
