"""WebDataset and img2dataset shards: tar files whose members KEY.jpg, KEY.txt, KEY.json make one sample.

Pictures are read where they lie, by an index of offsets that is made once for a shard and kept beside it
(`.NAME.tar.index`) or, where that cannot be written, in the user's cache folder; it is made anew when the
shard's size or time changes. Captions: `KEY.txt`, one a line, else `caption` (or another usual name) in
`KEY.json`, a text or a list; where `data.caption` names fields, those of `KEY.json` alone.

WebDataset's key ends at the first dot, and what follows is the kind of the member, `left.jpg` for instance.
Many names have dots of their own (`2021.05.01.jpg`), so the last dot counts here, unless the members up to
the first dot are a sample of their own: then `KEY.1.jpg` is a further image of it, and `KEY.left.jpg` one
of the members that are not read, which are counted. A key without a caption is an image alone, one without
an image is a text alone. The id of an item is the shard's path and the key. Compressed tar files are not
read: they have no random access.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unicross.batches import Indices
from unicross.data.formats.downloads import failed_downloads
from unicross.data.formats.shards import (
    FileRecords,
    ShardRows,
    concat,
    file_stamp,
    find_files,
    join,
    named_nowhere,
    numbered,
    relative_name,
    same_split,
    split_of,
)
from unicross.data.formats.tar_members import SCHEMA, scan_shard
from unicross.data.records import Problem, ReadOptions, Records
from unicross.files import beside
from unicross.reading import LARGEST_PICTURE, check_file, open_file

LAYOUT = 3
"""Part of the stamp of an index: raise it when the same shard would give another one."""
STAMP, UNREAD = b"unicross", b"unread"


def find(root: Path) -> list[Path]:
    """`root` where it is a shard, or a folder with shards in it or in its folders."""
    return [root] if _shards(root) else []


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of the shards. Damaged ones are problems; what is sound of them is read."""
    problems, notes = failed_downloads(root if root.is_dir() else root.with_suffix(".parquet"))
    paths = _shards(root)
    unread: Counter[str] = Counter()
    files, indices = [], []
    for path in paths:
        name = relative_name(path, root)
        table = _index(path, split_of(name), options.captions, problems)
        members = Counter(json.loads((table.schema.metadata or {}).get(UNREAD, b"{}")))
        unread += members
        if members and not table.num_rows:
            what = f"nothing in it is read, no KEY.jpg, KEY.txt or KEY.json: it holds {_listed(members)}"
            problems.append(Problem("damaged shard", str(path), what, split_of(name)))
        column = {key: concat(table.column(key).chunks, table.schema.field(key).type) for key in SCHEMA.names}
        has_image = np.asarray(column["offset"]) >= 0
        ids = numbered(name, "/", column["item"])
        split = same_split(split_of(name), len(has_image))
        files.append(FileRecords(ids, column["captions"], has_image, split))
        indices.append(column)
    if unread:
        what = f"{unread.total()} members that are no KEY.jpg, KEY.txt or KEY.json: {_listed(unread)}"
        problems.append(Problem("not read", str(root), what))
    if options.captions and not any(len(index["captions"].drop_null()) for index in indices):
        raise named_nowhere(root, options.captions)
    pictures = TarPictures(paths, indices)
    return join(files, pictures, pictures.name, [*paths, *notes], several=True), problems


def _listed(members: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in members.most_common(12))


def _shards(root: Path) -> list[Path]:
    return find_files(root, ".tar")


class TarPictures(ShardRows):
    """The pictures of tar shards by offset. A row is a key of a shard, or a further image of one."""

    def __init__(self, paths: list[Path], indices: list[dict[str, Any]]) -> None:
        super().__init__(paths, [len(index["key"]) for index in indices])
        self._file_sizes = [os.path.getsize(path) for path in paths]
        self._keys = concat([index["key"] for index in indices], pa.large_string())
        self._offset: Indices = np.asarray(concat([index["offset"] for index in indices], pa.int64()))
        self._size: Indices = np.asarray(concat([index["size"] for index in indices], pa.int64()))

    def name(self, row: int) -> str:
        return f"{self.paths[self.locate(row)[0]]}: {self._keys[row].as_py()}"

    def find(self, path: Path, place: str) -> int | None:
        if path not in self.paths:
            return None
        number = self.paths.index(path)
        start, end = int(self._bounds[number]), int(self._bounds[number + 1])
        row = pc.index(self._keys.slice(start, end - start), place).as_py()
        return None if row < 0 or self._offset[start + row] < 0 else start + int(row)

    def read(self, row: int) -> bytes:
        number, _ = self.locate(row)
        with open_file(self.paths[number]) as file:
            if os.fstat(file.fileno()).st_size != self._file_sizes[number]:
                raise OSError("the shard changed after it was opened; begin again")
            file.seek(int(self._offset[row]))
            size = int(self._size[row])
            if size > LARGEST_PICTURE:
                raise OSError(f"{size} bytes, above the limit of {LARGEST_PICTURE}")
            return file.read(size)


def _index(path: Path, split: str | None, captions: Sequence[str] | None, problems: list[Problem]) -> Any:
    """The index of a shard as a table of SCHEMA: kept from before, or made now and kept if it is sound."""
    named = "" if captions is None else f" {json.dumps(captions)}"
    stamp = f"{LAYOUT} {file_stamp(path)}{named}".encode()
    hashed = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unicross" / "tar"
    candidates = (path.with_name(f".{path.name}.index"), cache / f"{hashed}.index")
    for candidate in candidates:
        try:
            check_file(candidate)
            table = pq.read_table(candidate)
        except (OSError, pa.ArrowException):  # not there, or half of one
            continue
        if (table.schema.metadata or {}).get(STAMP) == stamp:
            return table
    damage: list[Problem] = []
    table, unread = scan_shard(path, split, captions, damage)
    table = table.replace_schema_metadata({STAMP: stamp, UNREAD: json.dumps(unread).encode()})
    problems += damage
    if not damage:
        for candidate in candidates:
            try:
                _write(table, candidate)
                break
            except OSError:  # a folder that only others may write to
                continue
    return table


def _write(table: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        pq.write_table(table, partial, compression="zstd")
