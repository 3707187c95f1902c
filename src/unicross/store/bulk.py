"""Embedding a folder without a store, into kept Parquet: on this machine, or on a Ray cluster.

For collections beyond one machine: every Ray worker holds the model and writes parts of its own into a folder
that all of them reach, so no new vector passes through the driver. A run that was cut off goes on where it
stopped. `unicross store rebuild` makes a store of any engine of the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unicross.embed import Encoder, Failure
from unicross.errors import StoreError
from unicross.store.base import Row, StoreInfo
from unicross.store.folder import embed_rows, read_folder
from unicross.store.index import CHUNK, IndexReport, Plan, Progress, plan_changes
from unicross.store.keep import Keep

Load = Callable[[], Encoder]
"""Makes the model; called once in every Ray worker, so it must be importable there."""


def embed_folder(
    model: Encoder, info: StoreInfo, folder: Path, out: Path, *, captions: Path | None, progress: Progress
) -> IndexReport:
    """Embed what is new or changed under `folder` into `out`. Raises DataError, StoreError."""
    keep = Keep(out)
    plan, report = _prepare(keep, info, folder, captions)
    for start in range(0, len(plan.fresh), CHUNK):
        rows, failures = embed_rows(model, plan.fresh[start : start + CHUNK])
        keep.append(rows)
        report.failed += failures
        report.added += len(rows)
        progress(min(start + CHUNK, len(plan.fresh)), len(plan.fresh))
    return report


def embed_folder_ray(
    load: Load,
    info: StoreInfo,
    folder: Path,
    out: Path,
    *,
    captions: Path | None,
    progress: Progress,
    workers: int = 2,
    gpus_per_worker: float = 0,
) -> IndexReport:
    """The same on the Ray cluster that RAY_ADDRESS names, or one of this machine.

    `folder` and `out` must be at the same place on every node. Raises DataError, StoreError.
    """
    try:
        import ray
    except ImportError as error:
        raise StoreError("embedding over Ray needs ray: pip install 'unicross[ray]'") from error

    keep = Keep(out)
    plan, report = _prepare(keep, info, folder, captions)
    if not plan.fresh:
        return report
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        size = min(CHUNK, -(-len(plan.fresh) // workers))
        blocks = -(-len(plan.fresh) // size)  # so many that no task of Ray's own waits for the workers' CPUs
        # a row goes as text: of mappings, Arrow would give every row all the others' columns
        rows = ray.data.from_items(
            [{"row": json.dumps(asdict(row))} for row in plan.fresh], override_num_blocks=blocks
        )
        answers = rows.map_batches(
            _Worker,
            fn_constructor_args=(load, str(out.resolve()), keep.run),
            batch_size=size,
            concurrency=workers,
            num_gpus=gpus_per_worker,
        )
        for answer in answers.iter_rows():
            report.added += answer["added"]
            report.failed += [Failure(**failure) for failure in answer["failed"]]
            progress(report.added + len(report.failed), len(plan.fresh))
    finally:
        if started_here:
            ray.shutdown()
    return report


class _Worker:
    """Lives in a process of a node: holds the model, writes parts, answers with counts only."""

    def __init__(self, load: Load, out: str, run: int) -> None:
        self._model = load()
        self._keep = Keep(Path(out), run)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows, failures = embed_rows(self._model, [Row(**json.loads(row)) for row in batch["row"]])
        self._keep.append(rows)
        return {"added": [len(rows)], "failed": [[asdict(failure) for failure in failures]]}


def _prepare(keep: Keep, info: StoreInfo, folder: Path, captions: Path | None) -> tuple[Plan, IndexReport]:
    """Compare the folder with what is kept; note whose embeddings these are."""
    wanted = read_folder(folder, captions)
    keep.describe(info.model_copy(update={"roots": (wanted.root,)}))
    known = {row.id: row for rows in keep.replay(vectors=False) for row in rows}
    plan = plan_changes(wanted, known)
    _retell(keep, {row.id: row for row in plan.told})
    return plan, IndexReport(unchanged=plan.unchanged, updated=len(plan.told), failed=list(wanted.failures))


def _retell(keep: Keep, told: Mapping[str, Row]) -> None:
    """Keep rows anew whose captions or columns changed, with the vectors that they have."""
    if told:
        old = [row for rows in keep.replay() for row in rows if row.id in told]
        keep.append([replace(told[row.id], vector=row.vector) for row in old])
