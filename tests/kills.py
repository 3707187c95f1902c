"""Every command that writes, killed at random moments and run again: what it leaves equals an unbroken run's.

    python tests/kills.py [--kills 200] [--seed 0]

Each command runs in a process of its own and gets SIGKILL at a moment of its usual time, up to three times in
a row; what lies there after a kill must be whole or a part that can be gone on with, and what lies there in
the end must equal what the unbroken command left. Ends with a report as JSON, and with exit code 1 where
something did not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

import tiny
from unicross.cli import main
from unicross.store import open_store
from unicross.store.archive import EmbeddingArchive

SLOW_IMPORTS = ["transformers", "unicross.training", "unicross.export", "unicross.store.lance"]
CLOCK = ("pairs_per_second", "seconds", "time")
"""What an event says of the clock, which differs from run to run."""


@dataclass
class Command:
    """What is killed. `{home}` in its arguments is the folder that all kills of one run share."""

    arguments: Callable[[Path], list[str]]
    left: Callable[[Path], Any]
    """What it left, as JSON; None where it left nothing."""
    whole: bool
    """Whether what it leaves is there as a whole or not at all."""
    before: Callable[[Path], object] = Path.exists
    """Puts there what must be there before it runs."""


def content(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def files(folder: Path) -> dict[str, str | None] | None:
    """The digests of a folder's files but for the model card and settings, which name folders."""
    if not folder.exists():
        return None
    return {path.name: content(path) for path in sorted(folder.rglob("*")) if path.suffix == ".safetensors"}


def run(folder: Path) -> Any:
    """The weights of a run and all that it says of itself but for its speed."""
    if not (folder / "last").exists():
        return None
    events = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kinds = ("step", "epoch", "eval", "round", "heads")
    told = [{key: value for key, value in event.items() if key not in CLOCK} for event in events]
    weights = {
        name: hashlib.sha256(b"".join(t.numpy().tobytes() for t in load_file(file).values())).hexdigest()
        for name in ("last", "best")
        if (file := folder / name / "model.safetensors").exists()
    }
    return {"weights": weights, "told": [event for event in told if event["kind"] in kinds]}


def rows(address: Path) -> Any:
    """A store's rows by id; twice the same id is a fault."""
    if not address.exists():
        return {}
    found = list(open_store(str(address)).scan(vectors=True))
    assert len({row.id for row in found}) == len(found), "an id stands twice"
    return {row.id: digest(row.vector) for row in found}


def kept(address: Path) -> Any:
    """By id, whether what a store keeps as thumbnail is of the row that it has; None for one of no row."""
    if not address.exists():
        return {}
    store = open_store(str(address))
    assert store.thumbnails is not None
    stored = {row.id: row for row in store.scan()}
    states = store.thumbnails.states()
    return {id: id in stored and store.thumbnails.picture(stored[id]) is not None for id in sorted(states)}


def archived(folder: Path) -> Any:
    """The rows of an archive by id, as its last words about them are."""
    if not any(folder.glob("*.parquet")):
        return {}
    return {row.id: digest(row.vector) for part in EmbeddingArchive(folder).replay() for row in part}


def digest(vector: Any) -> str:
    return hashlib.sha256(vector.tobytes()).hexdigest()


def train(home: Path) -> list[str]:
    out = home / "run"
    if (out / "recipe.yaml").exists():
        return ["train", "--resume", str(out)]
    return ["train", str(home.parent / "recipe.yaml"), "--out", str(out)]


def indexed(home: Path) -> None:
    shutil.copytree(home.parent / "store", home / "store")


def commands(base: Path) -> dict[str, Command]:
    model, photos, store = str(base / "model"), str(base / "photos" / "images"), str(base / "store")
    table = str(base / "photos")
    return {
        "train": Command(train, lambda home: run(home / "run"), whole=False),
        "compare": Command(
            lambda home: ["compare", str(base / "recipe.yaml"), "--seeds", "0,1", "--out", str(home / "out")],
            lambda home: [
                run(folder.parent) for folder in sorted((home / "out").glob("*/seed-*/metrics.jsonl"))
            ],
            whole=False,
        ),
        "index": Command(
            lambda home: ["index", model, photos, "--store", str(home / "store"), "--thumbnails", "64"],
            lambda home: [
                rows(home / "store"),
                archived(home / "store" / "embeddings"),
                kept(home / "store"),
            ],
            whole=False,
        ),
        "store forget": Command(
            lambda home: ["store", "forget", str(home / "store"), photos],
            lambda home: [
                rows(home / "store"),
                archived(home / "store" / "embeddings"),
                kept(home / "store"),
            ],
            whole=False,
            before=indexed,
        ),
        "store copy": Command(
            lambda home: ["store", "copy", store, str(home / "copy")],
            lambda home: [rows(home / "copy"), kept(home / "copy")],
            whole=False,
        ),
        "store rebuild": Command(
            lambda home: ["store", "rebuild", str(base / "store" / "embeddings"), str(home / "again")],
            lambda home: [rows(home / "again"), kept(home / "again")],
            whole=False,
        ),
        "embed": Command(
            lambda home: ["embed", model, photos, "--out", str(home / "vectors")],
            lambda home: archived(home / "vectors"),
            whole=False,
        ),
        "export": Command(
            lambda home: ["export", model, str(home / "exported")],
            lambda home: files(home / "exported"),
            whole=True,
        ),
        "data --write": Command(
            lambda home: ["data", table, "--check", "--write", str(home / "clean.csv")],
            lambda home: content(home / "clean.csv"),
            whole=True,
        ),
        "report": Command(
            lambda home: ["report", str(base / "run"), "--out", str(home / "page.html")],
            lambda home: content(home / "page.html"),
            whole=True,
        ),
    }


def call(arguments: list[str], said: str, started: Any) -> None:
    """What runs in a process of its own."""
    torch.set_num_threads(1)  # sums depend on it
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    sys.argv = ["unicross", *arguments]
    started.set()
    main()


def look(base: Path, name: str, home: Path, answer: Any) -> None:
    """What a command left, sent through a pipe."""
    answer.send(json.loads(json.dumps(commands(base)[name].left(home))))


class Kills:
    """Kills of all commands on one set of pictures, and what did not hold."""

    def __init__(self, base: Path, seed: int) -> None:
        self.base, self.rng = base, random.Random(seed)
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["kills", *SLOW_IMPORTS])
        self.kills: Counter[str] = Counter()
        self.faults: list[str] = []
        self.commands = commands(base)
        tiny.write_set(base / "photos")
        recipe = tiny.raw_recipe(
            base / "photos",
            tiny.ALIGN,
            tiny.SHARPEN,
            train={"save_minutes": 1e-9},
            model={"image_pool": "cls", "text_pool": "cls"},  # others cannot be exported
        )
        (base / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        for arguments in (
            ["train", str(base / "recipe.yaml"), "--out", str(base / "run")],
            ["export", str(base / "run"), str(base / "model")],
            self.commands["index"].arguments(base),
        ):
            assert self._run(arguments, base, None) == 0, (base / "said").read_text()

    def run(self, kills: int) -> dict[str, Any]:
        """Commands in turns until so many kills were delivered; the report."""
        usual = {}
        for name, command in self.commands.items():
            home = self._home(command)
            started = time.monotonic()
            code = self._run(command.arguments(home), home, None)
            usual[name] = (time.monotonic() - started, code, self._look(name, home))
        while self.kills.total() < kills:
            for name, command in self.commands.items():
                self._kill_and_go_on(name, command, *usual[name])
        return {"kills": dict(self.kills), "total": self.kills.total(), "faults": self.faults}

    def _kill_and_go_on(
        self, name: str, command: Command, seconds: float, usual: int | None, expected: Any
    ) -> None:
        home = self._home(command)
        for _ in range(3):
            if self._run(command.arguments(home), home, self.rng.random() * seconds) != -signal.SIGKILL:
                break
            self.kills[name] += 1
            if command.whole and self._look(name, home) not in (None, expected):
                self.faults.append(f"{name}: half of it after a kill, in {home}")
        if self._look(name, home) != expected:
            code = self._run(command.arguments(home), home, None)
            if code != usual:
                self.faults.append(
                    f"{name}: exit code {code} when run again: {(home / 'said').read_text()[-400:]}"
                )
        if self._look(name, home) != expected:
            self.faults.append(f"{name}: not what the unbroken command leaves, in {home}")
        else:
            shutil.rmtree(home)

    def _home(self, command: Command) -> Path:
        home = Path(tempfile.mkdtemp(dir=self.base))
        command.before(home)
        return home

    def _run(self, arguments: list[str], home: Path, kill_after: float | None) -> int | None:
        """The exit code of a command; it is killed after so many seconds, if any."""
        started = self.processes.Event()
        process = self.processes.Process(target=call, args=(arguments, str(home / "said"), started))
        process.start()
        started.wait(300)
        process.join(kill_after)
        process.kill()
        process.join()
        return process.exitcode

    def _look(self, name: str, home: Path) -> Any:
        """What a command left, seen from a process of its own: no store may be open where one forks."""
        ours, theirs = self.processes.Pipe(duplex=False)
        process = self.processes.Process(target=look, args=(self.base, name, home, theirs))
        process.start()
        theirs.close()
        try:
            return ours.recv()
        except EOFError:
            self.faults.append(f"what was left in {home} cannot be read")
            return "unreadable"
        finally:
            process.join()


def report() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="unicross-kills-"))
    told = Kills(base, arguments.seed).run(arguments.kills)
    if not told["faults"]:
        shutil.rmtree(base)
    print(json.dumps(told, indent=1))
    sys.exit(bool(told["faults"]))


if __name__ == "__main__":
    report()
