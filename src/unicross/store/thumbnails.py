"""Small JPEGs of a store's pictures, kept in its folder: they are seen where the pictures are not any more.

One SQLite file, so that it is carried with the store, every change is all or nothing, and deleted pictures
are overwritten and give their room back. In a table of LanceDB every compaction would write all of them anew.
A thumbnail has the size and time of the picture's file. It is only given for a row that has the same, so what
a kill left of a row that was never written, or of a picture that changed, is never shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from unicross.data.image_source import ImageSource
from unicross.errors import StoreError
from unicross.store.base import Row, Store, in_folder, make_id

FILE = "thumbnails.sqlite"
SMALLEST, LARGEST = 64, 2048
"""Pixels of the longer side."""
WAIT_S = 30.0
"""How long a reader waits for a writer that is just committing, and a writer for readers."""

State = tuple[int, float, int]
"""Of the picture's file, size and time; of the thumbnail, the side that was asked for."""


def check_thumbnails(side: int, address: str) -> None:
    """Raise StoreError unless thumbnails of this side can be kept in the store at this address."""
    if not SMALLEST <= side <= LARGEST:
        raise StoreError(
            f"thumbnails of {side} pixels: give {SMALLEST} to {LARGEST} for the longer side, such as 512"
        )
    if not in_folder(address):
        raise StoreError(
            f"{address}: thumbnails are kept in the folder of a store, and this one has none: leave out "
            "--thumbnails, or give --store a folder"
        )


@dataclass(frozen=True, slots=True)
class KeptPicture:
    """A kept thumbnail as an image source."""

    name: str
    data: bytes
    state: str

    def read(self) -> bytes:
        return self.data

    def stamp(self) -> str:
        return self.state


def kept_picture(store: Store, row: Row) -> ImageSource | None:
    """The thumbnail that a store keeps of a row's picture, as that was when it was embedded; None if none."""
    if store.thumbnails is None or not row.path:
        return None
    pictures = [row] if row.kind == "image" else store.get([make_id("image", row.path)])
    return store.thumbnails.picture(pictures[0]) if pictures else None


class Thumbnails:
    """Those of the store in a folder. Threads and processes may share them. All methods raise StoreError."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    @property
    def side(self) -> int | None:
        """Pixels of the longer side that new ones have; None where none are kept."""
        if not self._file.exists():
            return None
        with self._open() as database:
            (side,) = database.execute("PRAGMA user_version").fetchone()
        return side or None

    def begin(self, side: int) -> None:
        """Keep thumbnails of this side from now on; those that are there stay."""
        with self._change("rwc") as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS thumbnails "
                "(id TEXT PRIMARY KEY, size INTEGER, mtime REAL, side INTEGER, jpeg BLOB)"
            )
            database.execute(f"PRAGMA user_version = {side:d}")

    def put(self, thumbnails: Iterable[tuple[Row, bytes]]) -> None:
        """Keep thumbnails of pictures in place of those that they have."""
        side = self.side
        with self._change() as database:
            database.executemany(
                "INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?, ?, ?)",
                ((row.id, row.size, row.mtime, side, jpeg) for row, jpeg in thumbnails),
            )

    def copy(self, pairs: Iterable[tuple[Row, Row]]) -> None:
        """Keep the thumbnail of each first picture for the second one, too."""
        if self.side is not None:
            with self._change() as database:
                database.executemany(
                    "INSERT OR REPLACE INTO thumbnails SELECT ?, ?, ?, side, jpeg FROM thumbnails "
                    "WHERE id = ? AND size = ? AND mtime = ?",
                    ((new.id, new.size, new.mtime, old.id, old.size, old.mtime) for old, new in pairs),
                )

    def copy_from(self, other: Thumbnails) -> None:
        """Keep those of another store, too, if it has any."""
        if other.side is None:
            return
        if self.side is None:
            self.begin(other.side)
        with self._change(attached=other) as database:
            database.execute("INSERT OR REPLACE INTO thumbnails SELECT * FROM other.thumbnails")

    def delete(self, ids: Sequence[str]) -> None:
        """Drop those of pictures; ids that have none are no error."""
        if ids and self.side is not None:
            with self._change() as database:
                database.executemany("DELETE FROM thumbnails WHERE id = ?", ((id,) for id in ids))

    def picture(self, row: Row) -> ImageSource | None:
        """The thumbnail of a picture as it was embedded; None where none is kept."""
        if self.side is None:
            return None
        with self._open() as database:
            found = database.execute(
                "SELECT jpeg, side FROM thumbnails WHERE id = ? AND size = ? AND mtime = ?",
                (row.id, row.size, row.mtime),
            ).fetchone()
        return found and KeptPicture(row.path, found[0], f"thumbnail {found[1]} {row.size} {row.mtime}")

    def states(self) -> dict[str, State]:
        """Of which pictures, by id, thumbnails are kept."""
        if self.side is None:
            return {}
        with self._open() as database:
            rows = database.execute("SELECT id, size, mtime, side FROM thumbnails")
            return {id: (size, mtime, side) for id, size, mtime, side in rows}

    def about(self) -> dict[str, int] | None:
        """The side of new ones, how many there are, and their bytes; None where none are kept."""
        side = self.side
        if side is None:
            return None
        with self._open() as database:
            count, size = database.execute("SELECT count(*), sum(length(jpeg)) FROM thumbnails").fetchone()
        return {"side": side, "pictures": count, "bytes": size or 0}

    def is_of(self, folder: Path) -> bool:
        """Whether these are of the store in this folder."""
        return self._file.parent.resolve() == folder.resolve()

    @contextmanager
    def _open(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """`mode`: `rw`, in which a reader can take back what a killed writer left, or `rwc` to make the
        file."""
        address = f"{self._file.absolute().as_uri()}?mode={mode}"
        try:
            connection = sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None)
            with closing(connection) as database:
                yield database
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._file}: {error}. If it is damaged, remove it: `unicross index --thumbnails` makes it "
                "anew of the pictures that are there"
            ) from error

    @contextmanager
    def _change(self, mode: str = "rw", attached: Thumbnails | None = None) -> Iterator[sqlite3.Connection]:
        """All that is done to the database in it is kept, or nothing is."""
        with self._open(mode) as database:
            database.execute("PRAGMA auto_vacuum = FULL")  # counts where the file is made
            database.execute("PRAGMA secure_delete = ON")
            if attached is not None:
                database.execute("ATTACH ? AS other", (f"{attached._file.absolute().as_uri()}?mode=rw",))
            database.execute("BEGIN IMMEDIATE")
            yield database  # an error closes it, which takes all back
            database.execute("COMMIT")
