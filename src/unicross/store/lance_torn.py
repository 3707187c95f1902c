"""Versions of a LanceDB table whose last bytes a full disk did not take, and the way back to a whole one.

LanceDB writes a file of rows, then a version that names it. Where the disk is full at the file's last bytes,
it writes the version all the same, and no row of the table can be read any more. The versions before are
whole: the newest of them becomes the table again, and who wrote last is told that nothing was kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence, Set
from pathlib import Path

from lancedb.table import Table

ENDS_WITH = b"LANC"
"""The last bytes of every file of rows or of an index that is whole."""

STEPS_BACK = 3
"""So many versions before the newest may become the table again. A full disk spoils the newest or the one
before, as nothing can be written after; where older files are damaged, their loss is not for us to decide."""

log = logging.getLogger(__name__)


def files_of(table: Path) -> set[str]:
    """The files of rows and indexes in a table's folder."""
    folders = [table / "data", *_folders(table / "_indices")]
    return {entry.path for folder in folders for entry in _entries(folder) if entry.name.endswith(".lance")}


def torn(files: Set[str]) -> list[Path]:
    """Those of the files that are not whole."""
    return sorted(path for path in map(Path, files) if not _is_whole(path))


def mend(table: Table, cut: Sequence[Path]) -> None:
    """Make the newest version that can be read the table again, without its indexes if one of them is torn.

    Raises RuntimeError, ValueError or OSError where no version can be read, or the disk is still full.
    """
    if any(path.parent.name != "data" for path in cut):
        for index in table.list_indices():  # `optimize` makes them again
            table.drop_index(index.name)
    _step_back(table)
    for path in cut:  # whatever names them cannot be read
        path.unlink(missing_ok=True)


def _step_back(table: Table) -> None:
    table.checkout_latest()
    had = table.count_rows()
    newest, *older = sorted((int(entry["version"]) for entry in table.list_versions()), reverse=True)
    for version in (newest, *older[:STEPS_BACK]):
        table.checkout(version)
        if not _can_be_read(table):
            continue
        if version < newest:
            table.restore()
            log.warning(
                "The last change of the store was cut short, as on a full disk, and is taken back: it has "
                "%d rows, and had %d. `unicross index` adds what is missing.",
                table.count_rows(),
                had,
            )
        table.checkout_latest()
        return
    table.checkout_latest()
    raise ValueError("the newest versions of the table cannot be read")


def _can_be_read(table: Table) -> bool:
    """Whether each file of rows can be opened; one column is enough to find that out."""
    try:
        for _ in table.search().select(["id"]).limit(max(1, table.count_rows())).to_batches():
            pass
    except (RuntimeError, ValueError, OSError):
        return False
    return True


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(ENDS_WITH), os.SEEK_END)
            return file.read() == ENDS_WITH
    except FileNotFoundError:  # cleaned up meanwhile
        return True
    except OSError:  # shorter than that
        return False


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
