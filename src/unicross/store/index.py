"""Keeping a store in step with a folder of pictures.

Rows go in by chunks, each all or nothing, so a killed run leaves whole rows and the next run goes on from
there: what is in the store with the same size and time is not looked at again, and what is new or changed is
not embedded where a picture of the same content was (see `contents.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from unicross.data.image_source import ImageSource
from unicross.embed import Encoder, Failure, embed_images, finite
from unicross.errors import DataError, StoreError
from unicross.prefetch import OnProgress
from unicross.store.archive import CHUNK, EmbeddingArchive, archive_of, write_rows
from unicross.store.base import Row, Store
from unicross.store.catalog import Catalog
from unicross.store.changes import find_changes
from unicross.store.contents import Digested, copy_vectors, digests_of, find_known, source_of
from unicross.store.gaps import Mended, fill_gaps
from unicross.store.moved import find_moved, find_renamed, move_rows
from unicross.store.sources import AS_FOUND, Reading, read_rows
from unicross.store.thumbnailing import fill_thumbnails, keep, sources_of
from unicross.store.thumbnails import check_thumbnails


def _silent(done: int, total: int, /) -> None:
    del done, total


@dataclass
class IndexReport:
    """What a run of `index` did, in rows; `failed` lists what could not be taken and why."""

    found: int = 0
    """Pictures in the folder and texts in the captions file."""
    without_picture: int = 0
    """Items of a table or of shards that have texts alone, which are added."""
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    moved: int = 0
    """Pictures that were elsewhere, or had another name; they were not embedded again."""
    known: int = 0
    """Other pictures, new or changed, whose content was embedded before; they were not embedded again."""
    thumbnails: int = 0
    """Those that were made; see `thumbnails.py`."""
    failed: list[Failure] = field(default_factory=list)
    archived: int = 0
    """Rows of the store that the archive had lost or never got; it has them now."""
    archive_problems: list[str] = field(default_factory=list)
    """Files of the archive that were missing or damaged."""

    @property
    def changed(self) -> bool:
        return bool(self.added or self.updated or self.removed or self.moved or self.known)


def index(
    model: Encoder,
    folder: Path | Catalog,
    store: Store,
    *,
    captions: Path | None = None,
    reading: Reading = AS_FOUND,
    prune: bool = False,
    moved_from: Path | None = None,
    archive: EmbeddingArchive | None = None,
    thumbnails: int | None = None,
    on_progress: OnProgress = _silent,
) -> IndexReport:
    """Embed what is new or changed under `folder` into `store`.

    `folder` may also be what one can train on (a table, shards, Parquet ...): see `sources.py`.
    `reading` says of which format it is, and which columns it has. It may also be what `read_rows` made of
    them and `captions`, where that was to be known before.
    `captions` adds texts and user columns (see `catalog.py`). `prune` removes pictures of this folder that
    are gone, and texts that the captions file has no more. Pictures moved here, from `moved_from` or
    from wherever (see `moved.py`), keep their vectors. `archive` takes the embeddings as Parquet as well, and
    is what pictures are known again from by their content. `thumbnails`: pixels of the longer side of small
    pictures that are kept in the store from now on, of all pictures that are under `folder`.
    Raises DataError for a folder or captions file that cannot be used, StoreError for a store that another
    model filled, and for thumbnails of a nonsensical size or in a store without a folder.
    """
    if thumbnails is not None:
        check_thumbnails(thumbnails, store.address)
    store.info.check(model.fingerprint(), address=store.address)
    catalog = folder if isinstance(folder, Catalog) else read_rows(folder, captions, reading)
    store.remember(roots=[catalog.root])
    if thumbnails is not None and store.thumbnails is not None:
        store.thumbnails.begin(thumbnails)
    mended = Mended(0, [])
    if archive is not None:
        archive.describe(store.info)
        own = archive_of(store.address)
        is_own = own is not None and own.folder.resolve() == archive.folder.resolve()
        mended = fill_gaps(store, archive, own=is_own)
    stored, elsewhere = _stored(store, catalog.root)
    moved = _move(store, archive, catalog, stored, elsewhere, moved_from)
    if moved:
        stored, _ = _stored(store, catalog.root)
    changes = find_changes(catalog, stored)
    renamed, known = _recognise(store, archive, catalog, stored, changes.to_embed)
    moved += renamed
    if renamed or known:
        stored, _ = _stored(store, catalog.root)
        changes = find_changes(catalog, stored)
    report = IndexReport(
        found=catalog.found,
        without_picture=catalog.without_picture,
        unchanged=changes.unchanged - moved - known,
        moved=moved,
        known=known,
        failed=list(catalog.failures),
        archived=mended.rows,
        archive_problems=mended.problems,
    )
    _update(store, archive, changes.to_update, report)
    _embed(model, store, archive, catalog, changes.to_embed, stored, report, on_progress)
    if prune:
        _prune(store, archive, catalog, stored, report)
    made, failures = fill_thumbnails(store, catalog)
    report.thumbnails += made
    report.failed += failures
    if report.changed:
        store.optimize()
    return report


def embed_rows(
    model: Encoder,
    rows: Sequence[Row],
    on_progress: OnProgress = _silent,
    pictures: Mapping[str, ImageSource] = MappingProxyType({}),
) -> tuple[list[Row], list[Failure]]:
    """The rows with vectors and digests, and the pictures that cannot be read. Reports after every row.

    `pictures`: where the picture of a path is read from if not from the file of that path.
    """
    embedded: list[Row] = []
    failures: list[Failure] = []
    images = [row for row in rows if row.kind == "image"]
    texts = [row for row in rows if row.kind == "text"]
    sources = [Digested(source_of(row, pictures)) for row in images]
    vectors = embed_images(model, sources)
    for row, source, vector in zip(images, sources, vectors, strict=True):
        if isinstance(vector, DataError):
            failures.append(Failure(row.path, str(vector).removeprefix(f"{source.name}: ")))
        else:
            embedded.append(replace(row, vector=vector, digest=source.digest))
        on_progress(len(embedded) + len(failures), len(rows))
    text_vectors = finite(model.encode_texts([row.caption for row in texts])) if texts else ()
    for row, vector in zip(texts, text_vectors, strict=True):
        embedded.append(replace(row, vector=vector))
        on_progress(len(embedded) + len(failures), len(rows))
    return embedded, failures


def _stored(store: Store, root: str) -> tuple[dict[str, Row], list[Row]]:
    """The rows that lie under a folder, without vectors, and the pictures of others.

    Texts of no picture count to every folder.
    """
    folder = Path(root)
    stored, elsewhere = {}, []
    for row in store.scan():
        if not row.path or Path(row.path).is_relative_to(folder):
            stored[row.id] = row
        elif row.kind == "image":
            elsewhere.append(row)
    return stored, elsewhere


def _move(
    store: Store,
    archive: EmbeddingArchive | None,
    catalog: Catalog,
    stored: Mapping[str, Row],
    elsewhere: Sequence[Row],
    moved_from: Path | None,
) -> int:
    """Move the rows of pictures that lie here now. Returns how many."""
    if moved_from is not None and not any(
        Path(row.path).is_relative_to(moved_from.absolute()) for row in elsewhere
    ):
        raise StoreError(
            f"the store has no pictures of {moved_from}: it has those of {', '.join(store.info.roots)}"
        )
    new = [row for row in catalog.images.values() if row.id not in stored]
    moved = find_moved(new, elsewhere, Path(catalog.root), moved_from)
    if archive is not None and moved:
        digests = digests_of(archive, moved.values())
        moved = {id: replace(old, digest=digests.get(old.id, "")) for id, old in moved.items()}
    move_rows(store, archive, catalog, moved)
    return len(moved)


def _recognise(
    store: Store,
    archive: EmbeddingArchive | None,
    catalog: Catalog,
    stored: Mapping[str, Row],
    to_embed: Sequence[Row],
) -> tuple[int, int]:
    """Give pictures whose content was embedded before their vectors.

    Returns how many are such that moved, and how many others, which are copies or only have another time.
    """
    if archive is None:
        return 0, 0
    known = find_known(store, archive, to_embed, catalog.pictures)
    new = [row for row in to_embed if row.id not in stored]
    moved = find_renamed(new, known)
    copies = [(row, known[row.id][0]) for row in to_embed if row.id in known and row.id not in moved]
    copy_vectors(store, archive, copies)  # first: what is moved leaves its old row
    move_rows(store, archive, catalog, moved)
    return len(moved), len(copies)


def _update(
    store: Store, archive: EmbeddingArchive | None, to_update: Sequence[Row], report: IndexReport
) -> None:
    """New captions and columns for rows whose vectors stay."""
    digests = digests_of(archive, to_update) if archive is not None and to_update else {}
    for start in range(0, len(to_update), CHUNK):
        chunk = {row.id: row for row in to_update[start : start + CHUNK]}
        rows = [
            replace(chunk[old.id], vector=old.vector, digest=digests.get(old.id, ""))
            for old in store.get(list(chunk))
        ]
        write_rows(store, archive, rows)
        report.updated += len(rows)


def _embed(
    model: Encoder,
    store: Store,
    archive: EmbeddingArchive | None,
    catalog: Catalog,
    to_embed: Sequence[Row],
    stored: Mapping[str, Row],
    report: IndexReport,
    on_progress: OnProgress,
) -> None:
    total = len(to_embed)
    on_progress(0, total)
    for start in range(0, total, CHUNK):
        chunk = to_embed[start : start + CHUNK]

        def on_row(done: int, _: int, before: int = start) -> None:
            on_progress(before + done, total)

        sources = sources_of(store, chunk, catalog.pictures)
        rows, failures = embed_rows(model, chunk, on_row, sources)
        report.thumbnails += keep(store, rows, sources)
        write_rows(store, archive, rows)
        report.failed += failures
        replaced = sum(row.id in stored for row in rows)
        report.updated += replaced
        report.added += len(rows) - replaced


def _prune(
    store: Store,
    archive: EmbeddingArchive | None,
    catalog: Catalog,
    stored: Mapping[str, Row],
    report: IndexReport,
) -> None:
    stored_images = [row for row in stored.values() if row.kind == "image"]
    if stored_images and not catalog.images:
        raise StoreError(
            f"{catalog.root} holds no picture any more but the store has {len(stored_images)} of it: nothing "
            "was removed. Is a disk not mounted? If it is meant: unicross store forget "
            f"{store.address} {catalog.root}"
        )
    paths = {row.path for row in catalog.images.values()}
    unreadable = [failure.path for failure in catalog.failures]  # files, or whole folders
    only_root = len(store.info.roots) == 1  # with more folders, nobody knows whose a text of no picture is
    to_remove = []
    for row in stored.values():
        if row.path not in paths and any(Path(row.path).is_relative_to(path) for path in unreadable):
            continue
        image_gone = row.path and row.path not in paths
        text_gone = row.kind == "text" and catalog.texts is not None and row.id not in catalog.texts
        if image_gone or (text_gone and (row.path or only_root)):
            to_remove.append(row.id)
    if to_remove:
        if archive is not None:
            archive.forget(to_remove)
        store.delete(to_remove)
        report.removed += len(to_remove)
