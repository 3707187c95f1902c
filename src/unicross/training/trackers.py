"""Where a run's figures are shown besides its own folder: TensorBoard, MLflow, Weights & Biases.

A tracker is told the numbers of an event, once a step. Each is a package of its own and an extra of the same
name. Where it sends them is its own matter: TensorBoard writes into the run folder, MLflow goes by
MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, Weights & Biases by WANDB_PROJECT and WANDB_MODE.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from unicross.config import Recipe, TrackerName
from unicross.errors import RecipeError, TrainingError

PROJECT = "unicross"
"""The project or experiment of runs for which the user names none."""
TOGETHER = 500
"""Numbers that are sent to MLflow at a time, each time being a request."""


class Tracker(Protocol):
    """Shows the numbers of a run."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Show some numbers by name, `KIND/NAME`, as they were at a step."""

    def close(self) -> None:
        """Show what was not shown yet, and say that the run ended."""


class TensorBoard:
    """Writes event files into `RUN/tensorboard`."""

    def __init__(self, run: Path, recipe: Recipe, resume_at: int | None) -> None:
        del recipe  # the run folder has it
        from torch.utils.tensorboard import SummaryWriter

        after = None if resume_at is None else resume_at + 1
        self._board: Any = SummaryWriter(str(run / "tensorboard"), purge_step=after)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._board.close()


class MLflow:
    """A run of MLflow for each run folder, found again by the folder's address when training resumes."""

    def __init__(self, run: Path, recipe: Recipe, resume_at: int | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        home = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        address = str(run.resolve())
        self._run = None if resume_at is None else self._found(home, address)
        if self._run is None:
            created = self._client.create_run(home, run_name=run.name, tags={"unicross.run": address})
            self._run = str(created.info.run_id)
            params = [Param(key, str(value)[:500]) for key, value in flat(recipe.model_dump()).items()]
            for first in range(0, len(params), 100):  # MLflow takes no more at a time
                self._client.log_batch(self._run, params=params[first : first + 100])
        self._waiting: list[Any] = []

    def log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        # Its names may hold no @.
        self._waiting += [Metric(k.replace("@", "_at_"), v, now, step) for k, v in figures.items()]
        if len(self._waiting) >= TOGETHER:
            self._send()

    def close(self) -> None:
        self._send()
        self._client.set_terminated(self._run)

    def _send(self) -> None:
        sent, self._waiting = self._waiting, []
        for first in range(0, len(sent), 1000):  # MLflow takes no more at a time
            self._client.log_batch(self._run, metrics=sent[first : first + 1000])

    def _found(self, experiment: str, address: str) -> str | None:
        asked = "tags.`unicross.run` = '" + address.replace("'", "\\'") + "'"
        runs = self._client.search_runs([experiment], asked, max_results=1)
        return str(runs[0].info.run_id) if runs else None


class WeightsAndBiases:
    """A run of Weights & Biases for each run folder, with the same id when training resumes."""

    def __init__(self, run: Path, recipe: Recipe, resume_at: int | None) -> None:
        import wandb

        noted = run / "wandb" / "id.txt"
        if resume_at is None or not noted.is_file():
            noted.parent.mkdir(exist_ok=True)
            noted.write_text(uuid4().hex, encoding="utf-8")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=noted.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(run),
            config=recipe.model_dump(mode="json"),
        )
        # A run that resumes tells some steps again, which its own counter would refuse.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[TrackerName, tuple[str, Callable[[Path, Recipe, int | None], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WeightsAndBiases),
}
"""Package and class of each, by the name in recipes."""


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raise RecipeError where the package of one of them is not installed."""
    for name in names:
        if find_spec(TRACKERS[name][0]) is None:
            raise RecipeError(
                f"train.trackers: {name} is not installed: pip install 'unicross[{name}]', or leave it out"
            )


def open_trackers(
    names: Sequence[TrackerName], run: Path, recipe: Recipe, resume_at: int | None
) -> dict[str, Tracker]:
    """The trackers of a run, by name.

    `resume_at`: the step of the checkpoint from which it goes on; None for a new run. Raises TrainingError
    where one cannot begin, such as for a server that does not answer.
    """
    opened: dict[str, Tracker] = {}
    for name in names:
        try:
            opened[name] = TRACKERS[name][1](run, recipe, resume_at)
        except Exception as error:  # each package has errors of its own
            for tracker in opened.values():
                tracker.close()
            raise TrainingError(
                f"train.trackers: {name} cannot begin: {' '.join(str(error).split())}; "
                "mend that, or leave it out"
            ) from error
    return opened


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one of dotted keys; lists of mappings are numbered."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            value = {str(number): each for number, each in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
