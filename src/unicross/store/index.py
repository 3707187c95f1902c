"""Keeping a store in step with a folder of pictures.

Rows go in by chunks, each all or nothing, so a killed run leaves whole rows and the next run goes on from
there: what is in the store with the same size and time is not looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unicross.embed import Encoder, Failure, FoundFile, embed_files, walk
from unicross.errors import StoreError
from unicross.store.base import Condition, Row, Store, Value, make_id
from unicross.store.captions import Caption, read_captions
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
    files, failures = walk(folder)
    root = folder.resolve()
    if str(root) not in store.info.roots:
        store.remember(store.info.model_copy(update={"roots": (*store.info.roots, str(root))}))
    if keep is not None:
        keep.describe(store.info)
    said = _by_path(root, files, read_captions(captions), failures) if captions else None
    report = IndexReport(failed=failures)
    run = _Run(model, store, keep, progress, report)
    run.images(_wanted_images(files, said), _stored(store, "image", root))
    if said is not None:
        run.texts(_wanted_texts(files, said), _stored(store, "text", root))
    if prune:
        _prune(store, keep, root, files, said, report)
    if report.changed:
        store.optimize()
    return report


def _by_path(
    root: Path, files: Sequence[FoundFile], captions: Sequence[Caption], failures: list[Failure]
) -> dict[str, list[Caption]]:
    """Captions by the absolute path of their picture, "" for none; unknown pictures become failures."""
    by_name: dict[str, list[str]] = {}
    for file in files:
        by_name.setdefault(file.path.name, []).append(str(file.path))
    known = {str(file.path) for file in files}
    result: dict[str, list[Caption]] = {}
    unknown: set[str] = set()
    for caption in captions:
        if not caption.image:
            result.setdefault("", []).append(caption)
            continue
        path = str(root / caption.image)
        if path not in known:
            same_name = by_name.get(Path(caption.image).name, [])
            if len(same_name) != 1:
                unknown.add(caption.image)
                continue
            path = same_name[0]
        result.setdefault(path, []).append(caption)
    failures += [
        Failure(name, "has captions but is not among the pictures of the folder, or several have that name")
        for name in sorted(unknown)
    ]
    return result


def _wanted_images(
    files: Iterable[FoundFile], said: Mapping[str, Sequence[Caption]] | None
) -> dict[str, tuple[Row, bool]]:
    """Rows to be, without vectors, by id, and whether their caption and user columns are known."""
    rows = {}
    for file in files:
        path = str(file.path)
        row = Row(make_id("image", path), "image", path, file.size, file.mtime, album=file.album)
        own = said.get(path) if said else None
        if own:
            extra: dict[str, Value] = {}
            for caption in own:
                extra |= caption.extra
            row = replace(row, caption=next((c.text for c in own if c.text), ""), extra=extra)
        rows[row.id] = (row, own is not None)
    return rows


def _wanted_texts(files: Iterable[FoundFile], said: Mapping[str, Sequence[Caption]]) -> dict[str, Row]:
    albums = {str(file.path): file.album for file in files}
    rows = {}
    for path, captions in said.items():
        for caption in captions:
            if caption.text:
                id = make_id("text", path, caption.text)
                rows[id] = Row(
                    id, "text", path, caption=caption.text, album=albums.get(path, ""), extra=caption.extra
                )
    return rows


def _stored(store: Store, kind: str, root: Path) -> dict[str, Row]:
    """The store's rows of one kind that lie under a folder (texts of no picture count to every folder)."""
    rows = store.scan([Condition("kind", "=", kind)])
    return {row.id: row for row in rows if not row.path or Path(row.path).is_relative_to(root)}


@dataclass
class _Run:
    model: Encoder
    store: Store
    keep: Keep | None
    progress: Progress
    report: IndexReport
    done: int = 0
    total: int = 0

    def images(self, wanted: Mapping[str, tuple[Row, bool]], stored: Mapping[str, Row]) -> None:
        fresh: list[Row] = []
        told: list[Row] = []
        for id, (row, known) in wanted.items():
            old = stored.get(id)
            if old is not None and not known:
                row = replace(row, caption=old.caption, extra=old.extra)
            if old is None or (old.size, old.mtime) != (row.size, row.mtime):
                fresh.append(row)
            elif (old.caption, old.extra, old.album) != (row.caption, row.extra, row.album):
                told.append(row)
            else:
                self.report.unchanged += 1
        self._retell(told)
        self.total += len(fresh)
        self.progress(self.done, self.total)
        for start in range(0, len(fresh), CHUNK):
            chunk = fresh[start : start + CHUNK]
            rows = []
            embedded = embed_files(self.model, [Path(row.path) for row in chunk])
            for row, (_, vector) in zip(chunk, embedded, strict=True):
                if isinstance(vector, Failure):
                    self.report.failed.append(vector)
                else:
                    rows.append(replace(row, vector=vector))
                self.done += 1
                self.progress(self.done, self.total)
            self._put(rows, stored)

    def texts(self, wanted: Mapping[str, Row], stored: Mapping[str, Row]) -> None:
        fresh = [row for id, row in wanted.items() if id not in stored]
        told = [
            row
            for id, row in wanted.items()
            if id in stored and (stored[id].extra, stored[id].album) != (row.extra, row.album)
        ]
        self.report.unchanged += len(wanted) - len(fresh) - len(told)
        self._retell(told)
        self.total += len(fresh)
        for start in range(0, len(fresh), CHUNK):
            chunk = fresh[start : start + CHUNK]
            vectors = self.model.encode_texts([row.caption for row in chunk])
            self._put([replace(row, vector=v) for row, v in zip(chunk, vectors, strict=True)], stored)
            self.done += len(chunk)
            self.progress(self.done, self.total)

    def _retell(self, rows: Sequence[Row]) -> None:
        """New captions and columns for rows whose vectors stay."""
        for start in range(0, len(rows), CHUNK):
            chunk = {row.id: row for row in rows[start : start + CHUNK]}
            old = self.store.get(list(chunk))
            self._write([replace(chunk[row.id], vector=row.vector) for row in old])
            self.report.updated += len(old)

    def _put(self, rows: Sequence[Row], stored: Mapping[str, Row]) -> None:
        self._write(rows)
        known = sum(row.id in stored for row in rows)
        self.report.updated += known
        self.report.added += len(rows) - known

    def _write(self, rows: Sequence[Row]) -> None:
        if self.keep is not None:
            self.keep.append(rows)
        self.store.upsert(rows)


def _prune(
    store: Store,
    keep: Keep | None,
    root: Path,
    files: Sequence[FoundFile],
    said: Mapping[str, Sequence[Caption]] | None,
    report: IndexReport,
) -> None:
    images, texts = _stored(store, "image", root), _stored(store, "text", root)
    there = {str(file.path) for file in files} | {failure.path for failure in report.failed}
    if images and not files:
        raise StoreError(
            f"{root} holds no picture any more but the store has {len(images)} of it: nothing was removed. "
            "Is a disk not mounted? If it is meant, delete the store"
        )
    gone = [row.id for row in images.values() if row.path not in there]
    if said is not None:
        wanted = _wanted_texts(files, said)
        alone = len(store.info.roots) == 1  # with more folders, nobody knows whose a text of no picture is
        gone += [id for id, row in texts.items() if id not in wanted and (row.path or alone)]
    else:
        gone += [row.id for row in texts.values() if row.path and row.path not in there]
    if gone:
        if keep is not None:
            keep.forget(gone)
        store.delete(gone)
        report.removed += len(gone)
