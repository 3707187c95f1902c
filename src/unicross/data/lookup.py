"""A picture again by the path that a store keeps of it, where it lies in a shard or a Parquet or Arrow file.

Such a path is that of the file, and behind it the picture's place there: `shards/0.tar/KEY`,
`x.parquet/row 5`, or `x.parquet/photo row 5` where the column's name had to be said. What is known of a file
is kept for the pictures that follow, until the file changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from unicross.data.formats import FORMATS, detect
from unicross.data.formats.shards import ROW, ShardImage, ShardRows, file_stamp
from unicross.data.image_source import ImageSource
from unicross.data.records import ReadOptions
from unicross.errors import DataError

SHARDS = (".tar", ".parquet", ".arrow")
"""Files that hold pictures."""
FILES_KNOWN = 32
"""Files of which the places of pictures are kept in memory."""


def lies_in(path: str, roots: Sequence[str]) -> bool:
    """Whether a picture's real place, links resolved, is in one of these folders, be it there or gone."""
    if not path or "\0" in path:
        return False
    try:
        real = Path(path).resolve()
        return any(real.is_relative_to(Path(root).resolve()) for root in roots)
    except (OSError, RuntimeError):  # a link to itself
        return False


def shard_of(path: str) -> Path | None:
    """The existing file that a path leads into; None where it does not lead into one."""
    return next(
        (parent for parent in Path(path).parents if parent.suffix in SHARDS and parent.is_file()), None
    )


def picture_in(shard: Path, path: str) -> ImageSource | None:
    """The picture of a path that leads into a file; None where it is not there (any more)."""
    place = path.removeprefix(f"{shard}/")
    match = ROW.fullmatch(place)
    try:
        pictures = _pictures(shard, file_stamp(shard), match["column"] if match else None)
    except (OSError, DataError):
        return None
    row = pictures.find(shard, place)
    return None if row is None else ShardImage(pictures, row)


@lru_cache(FILES_KNOWN)
def _pictures(shard: Path, stamp: str, column: str | None) -> ShardRows:
    """The pictures of a file, or of the saved folder that it belongs to, in a column where that is not found
    by its name. Raises DataError."""
    del stamp  # only a key: of a file that changed, others are read
    format, source = detect(shard.parent, "arrow") if shard.suffix == ".arrow" else detect(shard, None)
    no_captions = None if format == "tar" else ()  # a shard's index that is kept has them
    columns = ReadOptions(images=(column,) if column else None, captions=no_captions)
    pictures = FORMATS[format].read(source, columns)[0].pictures
    if not isinstance(pictures, ShardRows):
        raise DataError(f"{shard}: no pictures inside")
    return pictures
