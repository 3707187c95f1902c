"""Pairs a second in training: unicross, open_clip and the bare towers, side by side in one run.

    python benchmarks/train_throughput.py FLICKR8K IMAGE_TOWER TEXT_TOWER --open-clip PYTHON [--keep NAME]

All sides train the same towers on the same pairs with the image-text loss only. *Bare* is the towers' forward
and backward on ready tensors, each text of the mean length, none padded: what the hardware can. *unicross* is
its training loop with all it does in an epoch but validation and checkpoints; `--processes N` adds it under
torchrun with N processes that share the cores. *open_clip* needs an environment of its own (see
open_clip_side.py). The sides take turns, `--rounds` times; the best of each counts, since sharing a machine
only ever slows.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from experiments import keep
from pairs import WARM, arguments_parser, bare_speed, pairs_recipe, write_pairs
from unicross.config import Recipe
from unicross.device import pick_device
from unicross.recipe import dump_recipe
from unicross.run import RunFolder
from unicross.training import train

OPEN_CLIP = {
    "open_clip (its defaults)": ("--precision", "fp32"),
    "open_clip bf16": ("--precision", "bf16"),
    "open_clip bf16, 32 tokens": ("--precision", "bf16", "--tokens", "32"),
    "open_clip bf16, compiled": ("--precision", "bf16", "--compile"),
    "open_clip bf16, 32 tokens, compiled": ("--precision", "bf16", "--tokens", "32", "--compile"),
}
ON_CPU, ON_GPU, COMPILED_ON_GPU = (list(OPEN_CLIP)[which] for which in (slice(3), slice(1, 3), slice(1, 5)))
"""In float32 on a GPU nobody trains."""


def main() -> None:
    parser = arguments_parser(__doc__)
    parser.add_argument("--open-clip", help="the Python of an environment with open_clip")
    parser.add_argument("--vision", default="deit_tiny_patch16_224", help="name of the image tower in timm")
    parser.add_argument("--workers", type=int, default=1, help="of open_clip's loader")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--processes", type=int, help="also unicross in so many processes (CPU)")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        table, listed = Path(folder) / "pairs.jsonl", Path(folder) / "pairs.json"
        items = write_pairs(arguments.flickr8k, arguments.batch * arguments.steps, table)
        pairs = [(path, captions[0]) for path, captions in items]
        listed.write_text(json.dumps(pairs))
        stage = {"name": "align", "epochs": 2, "losses": {"image_text": 1.0}}
        settings = {"batch_size": arguments.batch, "compile": arguments.compile, "save_minutes": 1000}
        recipe = pairs_recipe(arguments, table, stage, **settings)
        sides: dict[str, Callable[[], float]] = {
            "bare towers": lambda: bare_speed(recipe, [c for _, c in pairs], device, arguments.steps),
            "unicross": lambda: _unicross(recipe, str(device)),
        }
        if arguments.processes:
            sides[f"unicross, {arguments.processes} processes"] = lambda: _torchrun(
                recipe, arguments.processes, Path(folder)
            )
        if arguments.open_clip:
            on_gpu = COMPILED_ON_GPU if arguments.compile else ON_GPU
            for name in ON_CPU if device.type == "cpu" else on_gpu:
                sides[name] = lambda how=OPEN_CLIP[name]: _open_clip(arguments, listed, device, how)
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(arguments.rounds):
            for name, measure in sides.items():
                speeds[name].append(measure())
                _clear(device)
                print(f"round {turn + 1}: {name} {speeds[name][-1]:.1f} pairs/s", file=sys.stderr, flush=True)
            _report(arguments, device, speeds)


def _unicross(recipe: Recipe, device: str) -> float:
    """The second epoch of a run: its steps, with data, views, optimiser and logging."""
    heard: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, Path(folder) / "run", listener=heard.append, device=device)
    return [float(e["pairs_per_second"]) for e in heard if e["kind"] == "epoch"][-1]


def _torchrun(recipe: Recipe, processes: int, folder: Path) -> float:
    """As `_unicross`, in processes that speak over gloo, each with its share of the threads."""
    file, run = folder / "pairs.yaml", Path(tempfile.mkdtemp(dir=folder)) / "run"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    command += ["-m", "unicross", "train", str(file), "--device", "cpu", "--out", str(run)]
    command += [f"train.threads={max(1, torch.get_num_threads() // processes)}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"unicross under torchrun failed:\n{done.stderr[-2000:]}")
    return float(RunFolder(run).events("epoch")[-1]["pairs_per_second"])


def _open_clip(arguments: argparse.Namespace, pairs: Path, device: torch.device, how: Sequence[str]) -> float:
    settings = {
        "--vision": arguments.vision,
        "--size": arguments.size,
        "--batch": arguments.batch,
        "--steps": max(arguments.steps - WARM, 3),
        "--workers": arguments.workers,
        "--device": device.type,
        "--threads": torch.get_num_threads(),
    }
    command = [arguments.open_clip, str(Path(__file__).parent / "open_clip_side.py"), str(pairs)]
    command += [arguments.text, *how]
    command += [part for name, value in settings.items() for part in (name, str(value))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"open_clip failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["pairs_per_second"])


def _clear(device: torch.device) -> None:
    """Leave the GPU's memory to the next side, which may be another process."""
    if device.type == "cuda":
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def _report(arguments: argparse.Namespace, device: torch.device, speeds: dict[str, list[float]]) -> None:
    best = {name: max(values) for name, values in speeds.items()}
    table = Table("side", "pairs/s, best", "all rounds", "unicross is")
    for name, values in speeds.items():
        ratio = best["unicross"] / best[name]
        table.add_row(name, f"{best[name]:.1f}", " ".join(f"{v:.1f}" for v in values), f"{ratio:.2f} x")
    Console().print(table)
    if arguments.keep:
        keep(
            arguments.keep,
            device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            size=arguments.size,
            batch=arguments.batch,
            compile=arguments.compile,
            towers=[Path(arguments.image).name, Path(arguments.text).name],
            workers=arguments.workers,
            pairs_per_second=speeds,
        )


if __name__ == "__main__":
    main()
