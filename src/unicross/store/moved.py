"""Pictures that lie elsewhere now: their rows get the new path and keep their vectors, or are dropped.

A picture is taken for one that was embedded before where a row of another folder has its file name, size and
time of change, and its file is gone. Where the user says from which folder the pictures were moved, the path
below it and the size decide. Others are told by their content (see `contents.py`). Vectors are those of the
rows that they leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unicross.store.archive import CHUNK, EmbeddingArchive, write_rows
from unicross.store.base import Row, Store, make_id
from unicross.store.catalog import Catalog


def forget_root(store: Store, archive: EmbeddingArchive | None, root: Path) -> int:
    """Drop the rows of all pictures under a folder, which need not be there any more, and their texts.

    Returns how many there were. Files stay as they are.
    """
    folder = Path(os.path.abspath(root))
    ids = [row.id for row in store.scan() if row.path and Path(row.path).is_relative_to(folder)]
    gone = [noted for noted in store.info.roots if Path(noted).is_relative_to(folder)]
    if ids and archive is not None:
        archive.forget(ids)
    for start in range(0, len(ids), CHUNK):
        store.delete(ids[start : start + CHUNK])
    store.remember(without=gone)
    if archive is not None:
        archive.describe(store.info, without=gone)
    if ids:
        store.optimize()
    return len(ids)


def find_moved(
    new: Iterable[Row], elsewhere: Sequence[Row], root: Path, moved_from: Path | None
) -> dict[str, Row]:
    """The old row of each new picture row that is of a moved file, by the new row's id.

    `new` are rows under `root` that the store does not have, `elsewhere` are picture rows of other folders.
    """
    old_root = Path(os.path.abspath(moved_from)) if moved_from is not None else None
    by_path = {row.path: row for row in elsewhere}
    by_file: dict[tuple[str, int, float], list[Row]] = {}
    for row in elsewhere:
        by_file.setdefault((Path(row.path).name, row.size, row.mtime), []).append(row)
    moved: dict[str, Row] = {}
    taken: set[str] = set()
    for row in new:
        candidates = by_file.get((Path(row.path).name, row.size, row.mtime), [])
        candidates = [old for old in candidates if is_gone(old.path)]
        if old_root is not None:
            named = by_path.get(str(old_root / Path(row.path).relative_to(root)))
            candidates = [named] if named is not None and named.size == row.size else []
        if len(candidates) == 1 and candidates[0].id not in taken:
            moved[row.id] = candidates[0]
            taken.add(candidates[0].id)
    return moved


def find_renamed(new: Iterable[Row], known: Mapping[str, Sequence[Row]]) -> dict[str, Row]:
    """Of new picture rows, the old row of the same content whose file is gone, by the new row's id.

    `known`: old rows of the same content by the new row's id; one that has the same name goes first.
    """
    moved: dict[str, Row] = {}
    taken: set[str] = set()
    for row in new:
        name = Path(row.path).name
        for old in sorted(known.get(row.id, ()), key=lambda old: Path(old.path).name != name):
            if old.id not in taken and is_gone(old.path):
                moved[row.id] = old
                taken.add(old.id)
                break
    return moved


def is_gone(path: str) -> bool:
    """Whether a picture's file is not there any more; one in a shard is there as long as the shard is."""
    place = next(place for place in (Path(path), *Path(path).parents) if place.exists())
    return place.is_dir()


def move_rows(
    store: Store, archive: EmbeddingArchive | None, catalog: Catalog, moved: Mapping[str, Row]
) -> None:
    """Give moved pictures of a catalog and their texts their new paths. `moved`: old rows by the new id.

    What is captioned in the catalog has new captions and columns; the others keep theirs. Folders that are
    left by all their pictures are forgotten.
    """
    if not moved:
        return
    texts: dict[str, list[Row]] = {}
    old_paths = {old.path for old in moved.values()}
    left = []
    for row in store.scan(vectors=False):
        if row.kind == "text" and row.path in old_paths:
            texts.setdefault(row.path, []).append(row)
        elif row.path not in old_paths:
            left.append(Path(row.path))
    pairs = [(catalog.images[id], old) for id, old in moved.items()]
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        leaving = [old.id for _, old in chunk] + [
            text.id for _, old in chunk for text in texts.get(old.path, ())
        ]
        vectors = {row.id: row.vector for row in store.get(leaving)}
        rows = []
        for row, old in chunk:
            if row.id not in catalog.captioned:
                row = replace(row, caption=old.caption, extra=old.extra)
            rows.append(replace(row, vector=vectors[old.id], digest=old.digest))
            for text in texts.get(old.path, ()):
                id = make_id("text", row.path, text.caption)
                rows.append(replace(text, id=id, path=row.path, album=row.album, vector=vectors[text.id]))
        if store.thumbnails is not None:
            store.thumbnails.copy((old, row) for row, old in chunk)
        write_rows(store, archive, rows)
        if archive is not None:
            archive.forget(leaving)
        store.delete(leaving)
    others = [root for root in store.info.roots if root != catalog.root]
    store.remember(without=[root for root in others if not any(path.is_relative_to(root) for path in left)])
