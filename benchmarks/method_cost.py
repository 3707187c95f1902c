"""What an epoch of the method costs in epochs of sole CLIP, and its rounds: side by side in one run.

    python benchmarks/method_cost.py FLICKR8K IMAGE_TOWER TEXT_TOWER [--small 64] [--keep NAME]

*clip* has the image-text loss only. *method* has all three losses, sibling captions, and clustered batches
with a guard: two pictures and two captions of an item pass the towers. *small views* shows the second picture
at `--small` pixels. *fresh* is *method* with all embeddings of a round computed anew (`batches.embed=fresh`),
where the others reuse those of the epoch's steps. The sides take turns; the best epoch of each counts, since
sharing a machine only ever slows.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import keep
from pairs import arguments_parser, pairs_recipe, write_pairs
from unicross.training import train

EPOCHS = 3
"""The first is warm-up, and fills the bank of features."""


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--small", type=float, default=0.57)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--items", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device")
    arguments = parser.parse_args()
    sides = {
        "clip": _stage({"image_text": 1.0}),
        "method": _method(),
        "method, small views": _method(views={"image_uni": {"size": arguments.small}}),
        "method, fresh": _method(embed="fresh"),
    }
    epochs: dict[str, list[float]] = {name: [] for name in sides}
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.jsonl"
        write_pairs(arguments.flickr8k, arguments.items, table, captions=5)
        for turn, (name, stage) in itertools.product(range(arguments.rounds), sides.items()):
            heard = _train(arguments, table, stage, Path(folder) / f"{turn} {name}")
            epochs[name] += [event["seconds"] for event in heard if event["kind"] == "epoch"][1:]
            rounds[name] += [event["seconds"] for event in heard if event["kind"] == "round"][1:]
            print(f"round {turn + 1}: {name} {min(epochs[name]):.1f} s", file=sys.stderr, flush=True)
    shown = Table("side", "s an epoch", "of clip's", "s a round", "of its epoch")
    for name in sides:
        best = min(epochs[name])
        spent = min(rounds[name], default=0.0)
        whole = best + spent
        ratio = f"{whole / min(epochs['clip']):.2f}"
        shown.add_row(name, f"{best:.1f}", ratio, f"{spent:.2f}", f"{100 * spent / whole:.1f} %")
    Console().print(shown)
    if arguments.keep:
        settings = {name: getattr(arguments, name) for name in ("size", "small", "batch", "items", "compile")}
        keep(arguments.keep, **settings, epoch_seconds=epochs, round_seconds=rounds)


def _stage(losses: dict[str, float], **sections: Any) -> dict[str, Any]:
    return {"name": "align", "epochs": EPOCHS, "losses": losses} | sections


def _method(views: dict[str, Any] | None = None, embed: str = "reuse") -> dict[str, Any]:
    batches = {"kind": "clustered", "cluster_size": 16, "guard": 1.1, "embed": embed}
    losses = {"image_text": 1.0, "image_image": 0.1, "text_text": 0.1}
    return _stage(losses, views={"text": "sibling"} | (views or {}), batches=batches)


def _train(arguments: argparse.Namespace, table: Path, stage: dict[str, Any], run: Path) -> list[Any]:
    heard: list[Any] = []
    settings = {"batch_size": arguments.batch, "compile": arguments.compile, "threads": arguments.threads}
    recipe = pairs_recipe(arguments, table, stage, **settings)
    train(recipe, run, listener=heard.append, device=arguments.device)
    return heard


if __name__ == "__main__":
    main()
