"""Keeping a store in step with a folder of pictures.

Rows go in by chunks, each all or nothing, so a killed run leaves whole rows and the next run goes on from
there: what is in the store with the same size and time is not looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unicross.embed import Encoder, Failure
from unicross.errors import StoreError
from unicross.store.base import Row, Store
from unicross.store.folder import Wanted, embed_rows, read_folder
from unicross.store.keep import Keep

CHUNK = 512
"""Rows that are embedded between two commits to the store."""

Progress = Callable[[int, int], object]
"""Called with how many pictures and texts are done, and how many there are to do."""


def _silent(done: int, total: int, /) -> None:
    del done, total


@dataclass
class IndexReport:
    """What a run of `index` did, in rows; `failed` lists what could not be taken and why."""

    found: int = 0
    """Pictures in the folder and texts in the captions file."""
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[Failure] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.added or self.updated or self.removed)


def index(
    model: Encoder,
    folder: Path,
    store: Store,
    *,
    captions: Path | None = None,
    prune: bool = False,
    keep: Keep | None = None,
    progress: Progress = _silent,
) -> IndexReport:
    """Embed what is new or changed under `folder` into `store`.

    `captions` adds texts and user columns (see `captions.py`). `prune` removes pictures of this folder that
    are gone, and texts that the captions file has no more. `keep` writes the embeddings to Parquet as well.
    Raises DataError for a folder or captions file that cannot be used, StoreError for a store that another
    model filled.
    """
    store.info.check(model.fingerprint(), address=store.address)
    wanted = read_folder(folder, captions)
    store.remember(roots=[wanted.root])
    if keep is not None:
        keep.describe(store.info)
    stored = _stored(store, wanted.root)
    plan = plan_changes(wanted, stored)
    found = len(wanted.images) + len(wanted.texts or ())
    report = IndexReport(found=found, unchanged=plan.unchanged, failed=list(wanted.failures))
    _retell(store, keep, plan.told, report)
    _embed(model, store, keep, plan.fresh, stored, report, progress)
    if prune:
        _prune(store, keep, wanted, stored, report)
    if report.changed:
        store.optimize()
    return report


@dataclass(frozen=True)
class Plan:
    """What there is to do."""

    fresh: Sequence[Row]
    """To be embedded: new ones, and pictures whose file changed."""
    told: Sequence[Row]
    """With other captions or columns than are stored, their vectors unchanged."""
    unchanged: int


def plan_changes(wanted: Wanted, stored: Mapping[str, Row]) -> Plan:
    """Compare what should be there with what is. A picture of which nothing is said keeps what was said."""
    fresh, told, unchanged = [], [], 0
    for row in (*wanted.images.values(), *(wanted.texts or {}).values()):
        old = stored.get(row.id)
        if old is not None and row.kind == "image" and row.id not in wanted.described:
            row = replace(row, caption=old.caption, extra=old.extra)
        elif old is not None and row.kind == "image" and wanted.texts is None:  # only columns are told
            row = replace(row, caption=old.caption, extra={**old.extra, **row.extra})
        if old is None or (old.size, old.mtime) != (row.size, row.mtime):
            fresh.append(row)
        elif replace(old, vector=None) != row:
            told.append(row)
        else:
            unchanged += 1
    return Plan(fresh, told, unchanged)


def _stored(store: Store, root: str) -> dict[str, Row]:
    """The rows that lie under a folder, without vectors; texts of no picture count to every folder."""
    inside = Path(root)
    return {row.id: row for row in store.scan() if not row.path or Path(row.path).is_relative_to(inside)}


def _embed(
    model: Encoder,
    store: Store,
    keep: Keep | None,
    fresh: Sequence[Row],
    stored: Mapping[str, Row],
    report: IndexReport,
    progress: Progress,
) -> None:
    done = 0
    progress(done, len(fresh))

    def one_done() -> None:
        nonlocal done
        done += 1
        progress(done, len(fresh))

    for start in range(0, len(fresh), CHUNK):
        rows, failures = embed_rows(model, fresh[start : start + CHUNK], one_done)
        _write(store, keep, rows)
        report.failed += failures
        known = sum(row.id in stored for row in rows)
        report.updated += known
        report.added += len(rows) - known


def _retell(store: Store, keep: Keep | None, told: Sequence[Row], report: IndexReport) -> None:
    """New captions and columns for rows whose vectors stay."""
    for start in range(0, len(told), CHUNK):
        chunk = {row.id: row for row in told[start : start + CHUNK]}
        rows = [replace(chunk[old.id], vector=old.vector) for old in store.get(list(chunk))]
        _write(store, keep, rows)
        report.updated += len(rows)


def _write(store: Store, keep: Keep | None, rows: Sequence[Row]) -> None:
    if keep is not None:
        keep.append(rows)
    store.upsert(rows)


def _prune(
    store: Store, keep: Keep | None, wanted: Wanted, stored: Mapping[str, Row], report: IndexReport
) -> None:
    images = [row for row in stored.values() if row.kind == "image"]
    if images and not wanted.images:
        raise StoreError(
            f"{wanted.root} holds no picture any more but the store has {len(images)} of it: nothing was "
            "removed. Is a disk not mounted? If it is meant, delete the store"
        )
    there = {row.path for row in wanted.images.values()}
    unread = [Path(failure.path) for failure in wanted.failures]  # files, or whole folders
    alone = len(store.info.roots) == 1  # with more folders, nobody knows whose a text of no picture is
    gone = []
    for row in stored.values():
        if row.path not in there and any(Path(row.path).is_relative_to(place) for place in unread):
            continue
        unsaid = row.kind == "text" and wanted.texts is not None and row.id not in wanted.texts
        if (row.path and row.path not in there) or (unsaid and (row.path or alone)):
            gone.append(row.id)
    if gone:
        if keep is not None:
            keep.forget(gone)
        store.delete(gone)
        report.removed += len(gone)
