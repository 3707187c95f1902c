"""Several runs at once, each a process of its own with its share of the CPU's threads.

Small towers leave much of a CPU idle, as each of their operations is too short to be shared among threads:
two runs with a thread each end sooner than one after the other with two (docs/benchmarks.md).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from unicross.config import Recipe
from unicross.errors import TrainingError, TrainingStopped
from unicross.recipe import dump_recipe

LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class NewRun:
    """A run to train, or to go on with."""

    name: str
    recipe: Recipe
    folder: Path
    resume: bool


def train_side_by_side(
    runs: Sequence[NewRun], at_once: int, say: Callable[[str], None], device: str | None = None
) -> None:
    """Train so many runs at once, each by `unicross train`; `say` is told every line that they print, after
    the run's name.

    Where one fails, or this process is asked to stop, the others save and stop too. Raises TrainingError with
    the run named, or TrainingStopped.
    """
    from unicross.training.signals import stop_requests  # with torch, which wrong data do not wait for

    children = _Children(say, device, max(1, (os.cpu_count() or 1) // at_once))
    with stop_requests() as asked, ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(children.train, run) for run in runs]
        waiting = set(futures)
        while waiting and asked.signal is None and not any(f.exception() for f in futures if f.done()):
            waiting = wait(waiting, LOOK_EVERY_S, FIRST_EXCEPTION).not_done
        if waiting:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
    errors = [error for f in futures if not f.cancelled() and (error := f.exception())]
    if asked.signal is not None:
        raise TrainingStopped(
            f"stopped by {signal.Signals(asked.signal).name}; begun runs go on when it is repeated",
            asked.signal,
        )
    for error in sorted(errors, key=lambda error: isinstance(error, TrainingStopped)):
        raise error


@dataclass
class _Children:
    say: Callable[[str], None]
    device: str | None
    threads: int
    """Of each."""
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    is_stopped: bool = False

    def train(self, run: NewRun) -> None:
        """Train a run in a process. Raises TrainingError or TrainingStopped where it did not end well."""
        with tempfile.TemporaryDirectory(prefix="unicross-") as home:
            recipe = Path(home) / "recipe.yaml"
            recipe.write_text(dump_recipe(run.recipe), encoding="utf-8")
            what = ["--resume", run.folder] if run.resume else [recipe, "--out", run.folder]
            where = ["--device", self.device] if self.device else []
            with subprocess.Popen(
                [sys.executable, "-m", "unicross", "train", *map(str, what), *where],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads)},
                start_new_session=True,  # Ctrl-C reaches it once, through `stop`
            ) as process:
                self.running.append(process)
                if self.is_stopped:
                    process.terminate()
                last = ""
                assert process.stdout is not None
                for line in process.stdout:
                    last = line.rstrip()
                    self.say(f"{run.name}: {last}")
            match process.returncode:
                case 0:
                    return
                case code if code in (128 + signal.SIGTERM, -signal.SIGTERM):
                    raise TrainingStopped(f"{run.name}: {last}", signal.SIGTERM)
                case code if code < 0:
                    raise TrainingError(f"{run.name}, in {run.folder}: ended by {signal.Signals(-code).name}")
                case _:
                    raise TrainingError(f"{run.name}, in {run.folder}: {last.removeprefix('error: ')}")

    def stop(self) -> None:
        """Have all of them save and end."""
        self.is_stopped = True
        for process in self.running:
            process.terminate()
