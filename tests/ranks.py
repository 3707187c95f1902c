"""What the distributed tests run in processes of their own: `python ranks.py FOLDER PHOTOS`.

Two processes train every run of `RUNS` under gloo into FOLDER/NAME. One run is cut short: what each process
says then is in FOLDER/stopped-RANK.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

import tiny
from unicross.config import DataConfig, Recipe
from unicross.data.items import Item, Items
from unicross.data.load import read_splits
from unicross.errors import UnicrossError
from unicross.model import TwoTower
from unicross.training import entry, state, train
from unicross.training.sharding import shard

RANKS = 2
ALL = tiny.SHARPEN | {
    "epochs": 2,
    "batches": tiny.SHARPEN["batches"] | {"cluster_size": 3, "drop_suspects": True},
}
STAGES = (tiny.UNI, tiny.ALIGN | {"fit_heads": True}, ALL)
CUT = 5
"""The step at which a run is cut short."""


def recipe(
    photos: Path,
    stages: Any = STAGES,
    dropout: float = 0.0,
    patch_dropout: float = 0.0,
    model: Any = None,
    **train: Any,
) -> Recipe:
    """Three kinds of stages; batches of 7 do not divide by two, and items alone add to them."""
    views = {"captions": 2, "image": {"patch_dropout": patch_dropout}}
    options = {"batch_size": 7} | train
    return tiny.recipe(
        photos, *stages, train=options, model={"dropout": dropout} | (model or {}), views=views
    )


SHARDED: dict[str, Any] = {
    "shard": True,
    "stages": [tiny.ALIGN | {"fit_heads": True}, ALL | {"fit_heads": True}],
    "patch_dropout": 0.01,
}
"""So little that no patch is left out: which ones would be, each process draws for itself.
Heads are fitted at first, and once more after training steps."""
SIGMOID: dict[str, Any] = {
    "stages": [ALL | {"losses": ALL["losses"] | {"objective": "sigmoid"}}],
    "model": {"bias": -10.0, "temperature": 0.1},
}
"""Each process computes its part of the losses only."""
REMEMBERED: dict[str, Any] = {
    "stages": [ALL | {"views": {"remembered": True}}],
    "model": {"uni_heads": "shared"},
    "correct_hubness": True,
}
RUNS: dict[str, dict[str, Any]] = {
    "whole": {},
    "remembered": REMEMBERED,
    "sigmoid": SIGMOID,
    "micro": {"micro_batch": 2},
    "sharded": SHARDED | {"micro_batch": 2},
    "dropout": {"dropout": 0.3, "stages": [tiny.ALIGN]},
    "dropout-again": {"dropout": 0.3, "stages": [tiny.ALIGN]},
}
BEGUN: dict[str, dict[str, Any]] = {
    "begun-by-one": {"save_minutes": 1e-9},
    "sharded-begun-by-one": SHARDED | {"save_minutes": 1e-9},
}
"""Runs that one process begins and two go on with."""
BEGUN_BY_TWO = "begun-by-two"
"""A run that two processes begin; its last checkpoint is that of its step CUT."""


def with_items_alone(data: DataConfig) -> Any:
    """The data set with a caption that three items share; three images and one text without each other."""
    train, val, problems = read_splits(data)
    items = list(train)
    for number in (1, 2):
        captions = items[number].captions
        items[number] = Item(items[number].id, items[number].images, (items[0].captions[0], *captions))
    alone = [Item(f"image {number}", items[number].images) for number in range(3)]
    return Items.of([*items, *alone, Item("text", (), ("a text about nothing",))]), val, problems


def run(name: str, folder: Path, photos: Path, **options: Any) -> None:
    """One run, begun or gone on with; with `cut`, until that step."""
    entry.read_splits = with_items_alone

    def listener(event: Any) -> None:
        if event["kind"] == "step" and event["step"] == options.get("cut"):
            raise UnicrossError("cut short")

    resume = (folder / name / "recipe.yaml").exists()
    changes = (RUNS | BEGUN).get(name, {"save_minutes": 1e-9})
    train(recipe(photos, **changes), folder / name, resume=resume, listener=listener, device="cpu")


def main(folder: Path, photos: Path, rank: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=RANKS, timeout=timedelta(minutes=10)
    )

    def counting(model: TwoTower, device: torch.device) -> None:
        whole = sum(p.numel() for p in model.parameters())
        shard(model, device)
        kept = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
        (folder / f"kept-{rank}").write_text(f"{kept / whole}")

    state.shard = counting
    for name in RUNS:
        run(name, folder, photos)
    for name in BEGUN:
        run(name, folder, photos)
    try:
        run(BEGUN_BY_TWO, folder, photos, cut=CUT)
    except UnicrossError as error:
        (folder / f"stopped-{rank}").write_text(str(error))


if __name__ == "__main__":
    children = []
    for rank in range(RANKS):
        child = os.fork()
        if child == 0:
            main(Path(sys.argv[1]), Path(sys.argv[2]), rank)
            os._exit(0)
        children.append(child)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))
