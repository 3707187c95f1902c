"""`train`: a recipe into a run folder, from reading the data to the summary."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from unicross.config import DataConfig, Recipe
from unicross.data.formats import require_root
from unicross.data.load import load_items, read_splits, survey
from unicross.data.places import is_address
from unicross.errors import DataError, TrainingError, UnicrossError
from unicross.events import Listener
from unicross.model import TwoTower
from unicross.model.hub import require_source
from unicross.run import RunFolder
from unicross.streams import stream
from unicross.training.checks import check_recipe_fits, check_trains, for_items
from unicross.training.dataset import Dataset, cached_side, choose_cache, make_dataset
from unicross.training.distributed import broadcast_object, check_same, is_first, joined, size
from unicross.training.event_log import EventLog
from unicross.training.loop import Loop
from unicross.training.signals import stop_requests
from unicross.training.state import State, make_model
from unicross.training.trackers import open_trackers, require_trackers
from unicross.training.used_words import train_used_words


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train a recipe into a run folder, together with the other processes where torchrun started several.

    Args:
        recipe: what to train; on resuming, equal to that of the run but for the place of the data.
        run: a new or empty folder, or with `resume` one of a run that was cut short; the first process's.
        listener: hears every event (see `events.Event`) of the first process.
        device: `cpu`, `cuda`, ...; None picks.

    Returns:
        The run's summary: best validation `metrics`, `forwards`, `compute` in GFLOP (see `cost`), `minutes`,
        `epochs`, `seed`.

    Raises:
        RecipeError, DataError, CheckpointError, TrainingError: each says what to do.
    """

    def take_folder(held: ExitStack) -> Path:  # in the first process, whose folder is everybody's
        folder = RunFolder(run)
        folder.check_resumable(recipe) if resume else folder.check_free()
        held.enter_context(folder.locked())
        return run

    try:
        with joined(device) as own_device, ExitStack() as held:
            folder = RunFolder(broadcast_object(lambda: take_folder(held)))
            return _train(recipe, folder, resume, listener if is_first() else None, own_device)
    except UnicrossError:
        if not resume and is_first():
            RunFolder(run).discard()
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run}: out of memory: set train.micro_batch (the gradient stays that of the whole batch) or "
            "lower train.batch_size, in a new run"
        ) from error
    except OSError as error:
        raise TrainingError(f"{run}: {error}; mend that and go on with --resume {run}") from error


def _train(
    recipe: Recipe, run: RunFolder, resume: bool, listener: Listener | None, device: torch.device
) -> dict[str, Any]:
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    # These cost nothing, and reading the data may take minutes.
    require_trackers(recipe.train.trackers)
    if not is_address(recipe.data.root):
        require_root(Path(recipe.data.root))
    for source in (recipe.model.pair, recipe.model.image, recipe.model.text):
        if isinstance(source, str):
            require_source(source)
    train_items, val_items, problems = read_splits(recipe.data)
    asked = recipe
    recipe, notes = for_items(asked, train_items)
    if resume:
        broadcast_object(lambda: run.check_data(train=train_items, val=val_items))
        broadcast_object(lambda: run.move_data(asked))
    model = make_model(recipe, train_items, device)
    check_trains(recipe, model)

    def on_progress(done: int, total: int) -> None:
        if listener is not None:
            listener({"kind": "decoding", "done": done, "total": total})

    side = cached_side(recipe.data, model.picture_rules)
    pictures = len(train_items.images) + len(val_items.images)
    cached, note = broadcast_object(lambda: choose_cache(recipe.data, pictures, side, run.path, size()))
    build = partial(
        make_dataset,
        model=model,
        data=cached,
        where=run.cache,
        rng=stream(recipe.seed, "captions"),
        on_progress=on_progress,
    )
    data, bad_train = build(train_items, side=side)
    val, bad_val = build(val_items, side=model.picture_rules.side) if val_items else (None, [])
    ids = [part.items.ids.to_pylist() for part in (data, val) if part is not None]
    check_same(list(chain.from_iterable(ids)), recipe.data.root)
    check_recipe_fits(recipe, data, val, model)
    if not resume:
        broadcast_object(lambda: run.create(asked, train=train_items, val=val_items))
    if recipe.train.lora is None and not recipe.train.shard:
        train_used_words(model, data.captions)
    state = State(model, recipe, len(data.items), several_images=data.has_siblings, asked=asked)
    goes_on = resume and run.last.exists()
    notes = [] if goes_on else notes
    if goes_on:
        checkpoint, problem = broadcast_object(run.sound_checkpoint)
        state.restore(checkpoint)
        notes += [problem] if problem else []
    elif resume:
        notes.append("no checkpoint was saved before the run was cut short: it begins anew")
    log = None
    if is_first():
        resume_at = state.progress.step if goes_on else None
        trackers = open_trackers(recipe.train.trackers, run.path, asked, resume_at)
        log = EventLog(run, resume_at, listener, trackers)
    new_model = partial(make_model, recipe, train_items, device)
    try:
        with stop_requests() as stop:
            loop = Loop(run, state, data, val, log, new_model, _elsewhere(recipe, model), stop)
            for text in notes:
                loop.emit("note", text=text)
            if not goes_on:
                loop.tell_notes(problems + bad_train + bad_val, [note] if note else [])
            return loop.go().model_dump()
    finally:
        if log is not None:
            log.close()


def _elsewhere(recipe: Recipe, model: TwoTower) -> dict[str, Dataset]:
    """The data sets of `forgetting`, whose pictures are decoded at each look: they may be many."""
    data_sets = {}
    for name, root in recipe.forgetting.items():
        data = DataConfig(root=root, max_tokens=recipe.data.max_tokens, cache="none")
        try:
            splits = survey(root).splits
            val = next((split for split in ("val", "dev", "validation", "test") if split in splits), None)
            items = load_items(root, val, on_error=data.on_error).items
        except DataError as error:
            raise DataError(f"forgetting.{name}: {error}") from error
        data_sets[name], _ = make_dataset(
            items,
            model,
            data,
            side=model.picture_rules.side,
            where=None,
            rng=stream(recipe.seed, "captions"),
            on_progress=lambda *_: None,
        )
    return data_sets
