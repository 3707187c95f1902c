"""Embedding without a store, into an archive: on this machine, or on a Ray cluster.

What can be indexed can be embedded: a folder of pictures, a table, shards, Parquet and the others of
`sources.py`. For collections beyond one machine: every Ray worker holds the model, reads the pictures where
they lie, and writes parts of its own into a folder that all of them reach, so neither a picture nor a new
vector passes through the driver. A run that was cut off goes on where it stopped. `unicross store rebuild`
makes a store of any engine of the result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unicross.data.image_source import ImageSource
from unicross.data.lookup import picture_in, shard_of
from unicross.embed import Encoder, Failure
from unicross.errors import StoreError
from unicross.prefetch import OnProgress
from unicross.store.archive import CHUNK, EmbeddingArchive
from unicross.store.base import Row, StoreInfo
from unicross.store.catalog import Catalog
from unicross.store.changes import Changes, find_changes
from unicross.store.index import IndexReport, embed_rows
from unicross.store.sources import AS_FOUND, Reading, read_rows

Load = Callable[[], Encoder]
"""Makes the model; called once in every Ray worker, so it must be importable there."""


def embed_source(
    model: Encoder,
    info: StoreInfo,
    place: Path,
    out: Path,
    *,
    captions: Path | None,
    on_progress: OnProgress,
    reading: Reading = AS_FOUND,
) -> IndexReport:
    """Embed what is new or changed in a folder or a source into the archive `out`.

    Raises DataError, StoreError.
    """
    archive = EmbeddingArchive(out)
    catalog, changes, report = _prepare(archive, info, place, captions, reading)
    total = len(changes.to_embed)
    for start in range(0, total, CHUNK):

        def on_row(done: int, _: int, before: int = start) -> None:
            on_progress(before + done, total)

        chunk = changes.to_embed[start : start + CHUNK]
        rows, failures = embed_rows(model, chunk, on_row, catalog.pictures)
        archive.append(rows)
        report.failed += failures
        report.added += len(rows)
    return report


def embed_source_ray(
    load: Load,
    info: StoreInfo,
    place: Path,
    out: Path,
    *,
    captions: Path | None,
    on_progress: OnProgress,
    reading: Reading = AS_FOUND,
    workers: int = 2,
    gpus_per_worker: float = 0,
) -> IndexReport:
    """The same on the Ray cluster that RAY_ADDRESS names, or one of this machine.

    `place` and `out` must be at the same place on every node. Raises DataError, StoreError.
    """
    try:
        import ray
    except ImportError as error:
        raise StoreError("embedding over Ray needs ray: pip install 'unicross[ray]'") from error

    archive = EmbeddingArchive(out)
    _, changes, report = _prepare(archive, info, place, captions, reading)
    total = len(changes.to_embed)
    if not total:
        return report
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of its use otherwise
        ray.init(include_dashboard=False, log_to_driver=False)
    try:
        block_size = min(CHUNK, -(-total // workers))
        blocks = -(-total // block_size)  # so many that no task of Ray's own waits for the workers' CPUs
        # a row goes as text: of mappings, Arrow would give every row all the others' columns
        rows = ray.data.from_items(
            [{"row": json.dumps(asdict(row))} for row in changes.to_embed], override_num_blocks=blocks
        )
        counts = rows.map_batches(
            _Worker,
            fn_constructor_args=(load, str(out.resolve()), archive.run),
            batch_size=block_size,
            concurrency=workers,
            num_gpus=gpus_per_worker,
        )
        for block in counts.iter_rows():
            report.added += block["added"]
            report.failed += [Failure(**failure) for failure in block["failed"]]
            on_progress(report.added + len(report.failed), total)
    finally:
        if started_here:
            ray.shutdown()
    return report


class _Worker:
    """Lives in a process of a node: holds the model, writes parts, answers with counts only."""

    def __init__(self, load: Load, out: str, run: int) -> None:
        self._model = load()
        self._archive = EmbeddingArchive(Path(out), run)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        to_embed = [Row(**json.loads(row)) for row in batch["row"]]
        rows, failures = embed_rows(self._model, to_embed, pictures=_in_shards(to_embed))
        self._archive.append(rows)
        return {"added": [len(rows)], "failed": [[asdict(failure) for failure in failures]]}


def _in_shards(rows: Iterable[Row]) -> dict[str, ImageSource]:
    """By path, the pictures of rows that are no files of their own; found again, as they stay on their
    node."""
    paths = [row.path for row in rows if row.kind == "image"]
    shards = {path: shard for path in paths if (shard := shard_of(path)) is not None}
    pictures = {path: picture_in(shard, path) for path, shard in shards.items()}
    return {path: picture for path, picture in pictures.items() if picture is not None}


def _prepare(
    archive: EmbeddingArchive, info: StoreInfo, place: Path, captions: Path | None, reading: Reading
) -> tuple[Catalog, Changes, IndexReport]:
    """Compare a place with the archive; note in it whose embeddings these are, and what needs no model."""
    catalog = read_rows(place, captions, reading)
    archive.describe(info.model_copy(update={"roots": (catalog.root,)}))
    problems, _ = archive.mend()
    stored = {row.id: row for rows in archive.replay(vectors=False) for row in rows}
    changes = find_changes(catalog, stored)
    _update(archive, changes.to_update)
    report = IndexReport(
        found=catalog.found,
        unchanged=changes.unchanged,
        updated=len(changes.to_update),
        failed=list(catalog.failures),
        archive_problems=problems,
    )
    return catalog, changes, report


def _update(archive: EmbeddingArchive, to_update: Sequence[Row]) -> None:
    """New captions and columns for rows whose vectors stay."""
    new = {row.id: row for row in to_update}
    if new:
        old = [row for rows in archive.replay() for row in rows if row.id in new]
        archive.append([replace(new[row.id], vector=row.vector, digest=row.digest) for row in old])
