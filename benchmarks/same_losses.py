"""Whether a change of the code changes what it computes.

    python benchmarks/same_losses.py OUT.json [BEFORE.json] [--seeds 0,1,2]

Trains every shipped recipe for a few steps with tiny random towers on a small set of drawn squares, in one
thread, and writes a digest of every step's losses. With BEFORE.json, made by another version of the code, it
says which recipes compute the same losses, bit for bit, and fails where one does not. With several seeds it
also sets the last loss and the rSum of both versions side by side, for a change that is not bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

from unicross.recipe import SHIPPED, load_recipe
from unicross.training import train

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210), "yellow": (230, 215, 60)}
PLACES = {"left": (4, 24), "right": (44, 24), "top": (24, 4), "bottom": (24, 44)}
GROUNDS = {"black": (10, 10, 10), "grey": (120, 120, 120), "brown": (110, 70, 40), "white": (240, 240, 240)}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MODEL = {
    "image": {"model_type": "vit", "patch_size": 8, **LAYERS},
    "text": {"model_type": "bert", "vocab_size": 200, "max_position_embeddings": 64, **LAYERS},
    "image_pool": "mean",
    "dim": 16,
    "uni_dim": 16,
    "image_size": 64,
}
EPOCHS = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("before", type=Path, nargs="?")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        table = draw_set(Path(folder))
        for path in sorted(SHIPPED.glob("*.yaml")):
            if path.stem.startswith("tune"):
                continue  # a pair has no tiny towers
            for seed in map(int, arguments.seeds.split(",")):
                name = f"{path.stem} {seed}"
                figures[name] = losses(path, table, seed, Path(folder) / name)
                print(name, figures[name], file=sys.stderr, flush=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.before is not None:
        before = json.loads(arguments.before.read_text())
        shared = [name for name in figures if name in before]
        differing = [name for name in shared if figures[name]["digest"] != before[name]["digest"]]
        print(f"the same losses: {len(shared) - len(differing)} of {len(shared)}; others: {differing}")
        if "," in arguments.seeds:
            print_means({name: before[name] for name in shared}, {name: figures[name] for name in shared})
        sys.exit(bool(differing))


def print_means(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> None:
    """Mean ± standard deviation over seeds of the last loss and the rSum, a row a recipe, and of all recipes.

    Both sides have the same names, `RECIPE SEED`.
    """
    recipes = sorted({name.rsplit(" ", 1)[0] for name in before})
    print("| recipe | loss before | loss after | rSum before | rSum after |\n|---|---|---|---|---|")
    for recipe in [*recipes, ""]:
        cells = [recipe or "mean of all"]
        for key, digits in (("loss", 2), ("rsum", 1)):
            for side in (before, after):
                values = [
                    row[key] for name, row in side.items() if name.startswith(f"{recipe} " if recipe else "")
                ]
                spread = f" ± {statistics.stdev(values):.{digits}f}" if recipe and len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        print(f"| {' | '.join(cells)} |")


def losses(path: Path, table: Path, seed: int, run: Path) -> dict[str, Any]:
    """A digest of all the losses of a recipe's run, how many steps there were, the last loss and the rSum."""
    stages = len(load_recipe(path, ["data.root=x"]).stages)
    overrides = [f"model.{key}={json.dumps(value)}" for key, value in MODEL.items()]
    overrides += [f"stages.{number}.epochs={EPOCHS}" for number in range(stages)]
    overrides += [f"data.root={table}", "data.split.val=val", "data.max_tokens=24", f"seed={seed}"]
    overrides += ["train.batch_size=32", "train.compile=false", "train.threads=1", "train.precision=fp32"]
    digest, steps, last = hashlib.sha256(), 0, float("nan")

    def listen(event: Any) -> None:
        nonlocal steps, last
        if event["kind"] == "step":
            each = {key: event[key] for key in sorted(event) if key == "loss" or key.startswith("loss/")}
            digest.update(json.dumps([each, event["grad_norm"]]).encode())
            steps, last = steps + 1, event["loss"]

    summary = train(load_recipe(path, overrides), run, listener=listen, device="cpu")
    rsum = summary["metrics"]["rsum"]
    return {"digest": digest.hexdigest()[:16], "steps": steps, "loss": last, "rsum": rsum}


def draw_set(folder: Path) -> Path:
    """160 pairs, 32 images alone and 32 texts alone to train on, and 32 pairs to validate on."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    scenes = list(itertools.product(COLOURS, PLACES, GROUNDS, ("small", "large"), ("plain", "framed")))
    lines = []
    for number, scene in enumerate(rng.permutation(len(scenes))):
        colour, place, ground, size, frame = scenes[scene]
        picture = Image.new("RGB", (80, 80), GROUNDS[ground])
        (x, y), side = PLACES[place], 16 if size == "small" else 30
        if frame == "framed":
            picture.paste((250, 250, 250), (x - 2, y - 2, x + side + 2, y + side + 2))
        picture.paste(COLOURS[colour], (x, y, x + side, y + side))
        picture.save(folder / "images" / f"{number}.png")
        captions = [
            f"a {size} {frame} {colour} square at the {place} of a {ground} ground",
            f"there is something {frame}, {size} and {colour} at the {place}, all else is {ground}",
            f"{ground} ground with a {size} {colour} block, {frame}, {place}",
        ]
        record = {"image": f"{number}.png", "caption": captions, "split": "train" if number < 224 else "val"}
        if 160 <= number < 192:
            record["caption"] = None
        elif 192 <= number < 224:
            record["image"] = None
        lines.append(json.dumps(record) + "\n")
    table = folder / "captions.jsonl"
    table.write_text("".join(lines), encoding="utf-8")
    return table


if __name__ == "__main__":
    main()
