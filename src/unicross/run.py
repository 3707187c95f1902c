"""The run folder: what lies in it, how a run begins, what it tells, and how it is gone on with.

    RUN/recipe.yaml          the recipe, every value written out
    RUN/data_root.txt        where the data were, where the recipe says it by a relative path
    RUN/data.json            digests of the items, by which a resumed run knows its data again
    RUN/metrics.jsonl        one line an event
    RUN/skipped.txt          problems in the data that were skipped
    RUN/cache/               decoded pictures
    RUN/checkpoints/NAME/    a model checkpoint with its recipe; of `last`, what training needs besides
    RUN/last -> checkpoints/NAME    the newest, from which a run resumes
    RUN/previous -> checkpoints/NAME    the one before, from which it resumes where the newest is damaged
    RUN/best -> checkpoints/NAME    the best on validation
    RUN/summary.json         what came of the run; written when it is done
    RUN/evaluation.json      what every query of the evaluation found

No other module knows these names but those in every model's folder (`model_folder.py`). A checkpoint is
written to a folder beside its own and renamed when all of it is on disk; then the link is replaced. Both
are atomic, so that a kill at any moment leaves the checkpoint before or the one after.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from unicross.calibration import Calibration
from unicross.config import Recipe
from unicross.data.items import Items
from unicross.errors import CheckpointError, DataError, RecipeError
from unicross.events import Event, open_events, read_events
from unicross.files import damage, folder_beside, replace_link, write_manifest, write_text
from unicross.model_folder import CALIBRATION, RECIPE, recipe_of, with_root, write_recipe
from unicross.reading import read_text
from unicross.recipe import differences

METRICS, DATA, LOCK = "metrics.jsonl", "data.json", ".lock"


class Summary(BaseModel):
    """What came of a run that is done."""

    model_config = ConfigDict(frozen=True)

    metrics: dict[str, float]
    """The best on validation, in percent; empty where the run had none."""
    forgetting: dict[str, float] = Field(default_factory=dict)
    """rSum of that model on the other data that the recipe names, by name."""
    forwards: dict[str, float]
    """Tower forwards spent, by tower; a backward counts as two."""
    compute: float
    """GFLOP."""
    minutes: float
    epochs: int
    seed: int


@dataclass(frozen=True)
class RunFolder:
    """A folder that is one run's, or is to be."""

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.path / "last"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last one."""
        return self.path / "previous"

    @property
    def best(self) -> Path:
        """The best checkpoint on validation."""
        return self.path / "best"

    @property
    def cache(self) -> Path:
        """Where decoded pictures are kept; they may be there before the run is, from a try that failed."""
        return self.path / "cache"

    @property
    def evaluation(self) -> Path:
        """The file with what every query of the evaluation found."""
        return self.path / "evaluation.json"

    @property
    def has_begun(self) -> bool:
        return (self.path / RECIPE).is_file()

    @property
    def is_done(self) -> bool:
        return self._summary.is_file()

    @property
    def _summary(self) -> Path:
        return self.path / "summary.json"

    def recipe(self) -> Recipe:
        """The recipe that the run was begun with. Raises CheckpointError where none was begun."""
        if not self.has_begun:
            raise CheckpointError(f"{self.path}: nothing to resume: there is no {RECIPE} in it")
        return recipe_of(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in this folder meanwhile. Raises CheckpointError where somebody does."""
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"{self.path} is being trained by another process: wait until it is done, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def discard(self) -> None:
        """Remove the folder of a run that could not begin, unless there is something in it."""
        with suppress(OSError):
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def check_free(self) -> None:
        """Raise CheckpointError where the folder cannot become that of a new run; make it if need be."""
        try:
            mine = {self.cache, self.path / LOCK}
            if self.path.exists() and not mine.issuperset(self.path.iterdir()):
                raise CheckpointError(
                    f"{self.path} is not empty: choose another folder with --out, or go on with "
                    f"--resume {self.path}"
                )
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be used as a run folder: {error}") from error

    def check_resumable(self, recipe: Recipe) -> None:
        """Raise CheckpointError where there is no run, RecipeError where it was begun with another recipe.

        The data may lie elsewhere now: `check_data` knows them by their content.
        """
        begun_with = recipe_of(self.last) if (self.last / RECIPE).is_file() else self.recipe()
        begun_with = with_root(begun_with, recipe.data.root)
        if begun_with != recipe:
            changed = "; ".join(differences(begun_with, recipe))
            raise RecipeError(
                f"{self.path} was begun with another recipe; these differ: {changed}. "
                "Resume without overrides but data.root, or begin a new run"
            )

    def move_data(self, recipe: Recipe) -> None:
        """Note that the data of the run lie elsewhere now, once `check_data` found them to be the same."""
        if recipe != self.recipe():
            write_recipe(self.path, recipe)

    def create(self, recipe: Recipe, **splits: Items) -> None:
        """Make the folder that of a run, once all else fits: write what its data are, and its recipe."""
        digests = {name: items.digest() for name, items in splits.items()}
        write_text(self.path / DATA, json.dumps(digests, indent=2))
        write_recipe(self.path, recipe)

    def check_data(self, **splits: Items) -> None:
        """Raise CheckpointError, saying what differs, unless the data are those that the run was begun with.

        `splits`: the items by what they are for (`train`, `val`).
        """
        digests = {name: items.digest() for name, items in splits.items()}
        try:
            before = json.loads(read_text(self.path / DATA))
            changed = [
                f"{name} had {before[name]['number']} items and has {of_split['number']}"
                if what == "number"
                else f"{name} has other {what}"
                for name, of_split in digests.items()
                for what, digest in of_split.items()
                if before[name][what] != digest
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path / DATA}: cannot be read ({error}): begin a new run") from error
        if changed:
            raise CheckpointError(
                f"{self.path}: the data are not those that the run was begun with: {'; '.join(changed)}. "
                "Give their place as data.root=PATH, put them back as they were, or begin a new run"
            )

    def data_digests(self) -> str | None:
        """What the run's data are, to be compared with other runs'; None where it was not noted."""
        path = self.path / DATA
        return read_text(path) if path.is_file() else None

    def write_skipped(self, problems: list[str]) -> Path:
        """List what was skipped in the data. Returns where."""
        path = self.path / "skipped.txt"
        write_text(path, "".join(f"{problem}\n" for problem in problems))
        return path

    def write_summary(self, summary: Summary) -> None:
        """Say that the run is done, and what came of it."""
        write_text(self._summary, summary.model_dump_json(indent=2))

    def summary(self) -> Summary:
        """What came of the run. Raises DataError where it is not done or the file is damaged."""
        try:
            return Summary.model_validate_json(read_text(self._summary))
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{self._summary}: not the summary of a run: {error}; delete the run folder to train again"
            ) from error

    def events(self, *kinds: str) -> list[Event]:
        """What the run told, of these kinds or all."""
        return read_events(self.path / METRICS, *kinds)

    def open_events(self, resume_at: int | None) -> TextIO:
        """The file that events are appended to; with `resume_at` as it was at that step, else anew."""
        return open_events(self.path / METRICS, resume_at)

    def sound_checkpoint(self) -> tuple[Path, str | None]:
        """The newest checkpoint to resume from whose files are what was written; a sentence where it is not
        the last.

        Raises CheckpointError where there is no sound one.
        """
        problem = damage(self.last)
        if problem is None:
            return self.last, None
        if not self.previous.exists() or damage(self.previous) is not None:
            raise CheckpointError(f"{problem}, and there is no sound checkpoint before it: begin a new run")
        return self.previous, f"{problem}: the run goes on from the checkpoint before"

    def publish(self, link: Path, name: str, write: Callable[[Path], None]) -> None:
        """Have `write` fill a new checkpoint, let `link` (`last` or `best`) point at it, drop older ones.

        Raises CheckpointError where it cannot be written (a full disk); the link stays as it was.
        """
        checkpoints = self.path / "checkpoints"
        if self._is_linked(name):  # of a run that was killed after this and is here again
            name += "-again"
        target = checkpoints / name
        try:
            checkpoints.mkdir(parents=True, exist_ok=True)
            if target.exists():
                shutil.rmtree(target)
            with folder_beside(target) as partial:
                write(partial)
                write_manifest(partial)
            if link == self.last and link.is_symlink():
                replace_link(self.previous, Path(os.readlink(link)))
            replace_link(link, Path(checkpoints.name) / name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{target}: the checkpoint could not be written: {error}; the one before is untouched. "
                "Make room and go on with --resume"
            ) from error
        for folder in checkpoints.iterdir():
            if not self._is_linked(folder.name):
                shutil.rmtree(folder)

    def _is_linked(self, name: str) -> bool:
        links = (link for link in (self.last, self.previous, self.best) if link.is_symlink())
        return any(Path(os.readlink(link)).name == name for link in links)


def calibration_of(model: Path) -> Calibration | None:
    """How likely the scores of a model are matches; None for one that was not validated in training.

    Raises CheckpointError where the file is damaged.
    """
    path = checkpoint_at(model) / CALIBRATION
    if not path.is_file():
        return None
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: remove it, and no likelihoods are told") from error


def checkpoint_at(folder: Path) -> Path:
    """The checkpoint that a folder is, or of a run folder its best one."""
    best = RunFolder(folder).best
    return best if best.is_dir() else folder
