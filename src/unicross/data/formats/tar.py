"""WebDataset and img2dataset shards: tar files whose members KEY.jpg, KEY.txt, KEY.json make one sample.

Pictures are read where they lie, by an index of offsets that is made once for a shard and kept beside it
(`.NAME.tar.index`) or, where that cannot be written, in the user's cache folder; it is made anew when the
shard's size or time changes. Captions: `KEY.txt`, one a line, else `caption` (or another usual name) in
`KEY.json`, a text or a list.

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
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

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
    described,
    file_stamp,
    find_files,
    join,
    numbered,
    relative_name,
    same_split,
    split_of,
)
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.items import as_unicode
from unicross.data.records import LISTS, Problem, ReadOptions, Records
from unicross.files import beside
from unicross.reading import LARGEST_PICTURE, LARGEST_SETTINGS, check_file, open_file

LAYOUT = 3
"""Part of the stamp of an index: raise it when the same shard would give another one."""
LARGEST_HEADER = 2**20
"""Bytes of what a tar says about a member: its long name and the like."""
PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
STAMP, UNREAD = b"unicross", b"unread"
SCHEMA = pa.schema(
    {
        "key": pa.large_string(),
        "item": pa.large_string(),
        "captions": LISTS,
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)


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
    table, unread = _scan(path, split, captions, damage)
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


class _Member(tarfile.TarInfo):
    """A header; one that says more about a member than can be meant is damage, and is not read."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > LARGEST_HEADER and self.type in tarfile.GNU_TYPES[:2] + PAX_TYPES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


@dataclass
class _Sample:
    """What the members of one key say."""

    image: tuple[str, int, int] | None = None
    """Suffix, offset and size in bytes."""
    text: list[str] | None = None
    described: list[str] | None = None


@dataclass
class _Scan:
    """Reads the members of one shard."""

    path: Path
    split: str | None
    captions: Sequence[str] | None
    """Names of the captions in JSON members; None: the usual ones."""
    problems: list[Problem]
    samples: dict[str, _Sample] = field(default_factory=dict)
    further: dict[str, tuple[str, tuple[str, int, int]]] = field(default_factory=dict)
    """Further images by the name of their member: the key that they are of, and as `_Sample.image`."""
    unread: Counter[str] = field(default_factory=Counter)
    """Members that are not read, by the end of their name."""

    def damaged(self, what: str) -> None:
        advice = "copy or download the shard again"
        self.problems.append(Problem("damaged shard", str(self.path), f"{what}: {advice}", self.split))

    def members(self, file: BinaryIO) -> None:
        """Look at all members; a problem where the file is damaged."""
        length = os.fstat(file.fileno()).st_size
        end = 0
        try:
            with tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it keeps them all in memory
                    end = tar.offset
                    # A last picture that is cut off is damage, said below; it is not to be read half.
                    if member.isreg() and member.offset_data + member.size <= length:
                        self.member(member, file)
        except tarfile.TarError as error:
            self.damaged(f"not sound after byte {end} ({error})")
            return
        # A tar ends with blocks of zeros. Without one it breaks off, which tarfile takes for its end.
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            self.damaged(f"breaks off, or is not sound, after byte {end} of {length}")

    def member(self, member: tarfile.TarInfo, file: BinaryIO) -> None:
        folder, _, base = as_unicode(member.name).rpartition("/")
        if base.startswith("."):
            return  # hidden files
        key, dot, suffix = base.rpartition(".")
        key, suffix = f"{folder}/{key}".lstrip("/").removeprefix("./"), f".{suffix.lower()}"
        if not dot or (suffix not in IMAGE_SUFFIXES and suffix not in (".txt", ".json")):
            self.unread[suffix if dot else "without a suffix"] += 1
            return
        sample = self.samples.setdefault(key, _Sample())
        if suffix in IMAGE_SUFFIXES:
            if sample.image is not None:
                what = f"the key has two images, {sample.image[0]} and {suffix}"
                self.problems.append(Problem("duplicate id", f"{self.path}: {key}", what, self.split))
                return
            sample.image = (suffix, member.offset_data, member.size)
            return
        try:
            if member.size > LARGEST_SETTINGS:
                raise ValueError(f"{member.size} bytes, above the limit of {LARGEST_SETTINGS}")
            file.seek(member.offset_data)
            data = file.read(member.size)
            if suffix == ".txt":
                lines = data.decode("utf-8-sig").split("\n")
                sample.text = [line for line in lines if line.strip()]
            else:
                sample.described = described(json.loads(data), self.captions)
        except (ValueError, RecursionError) as error:
            where = f"{self.path}: {member.name}"
            self.problems.append(Problem("bad line", where, f"cannot be read: {error}", self.split))

    def put_right(self) -> None:
        """Where KEY is a sample, take `KEY.1.jpg` for a further image of it, and `KEY.left.jpg` from the
        samples: such are fields of it, not read."""
        for key in [key for key in self.samples if "." in key.rpartition("/")[2]]:
            sample = self.samples[key]
            folder, slash, base = key.rpartition("/")
            first, _, rest = base.partition(".")
            is_pair = sample.image is not None and (sample.text is not None or sample.described is not None)
            whole = f"{folder}{slash}{first}"
            if is_pair or whole not in self.samples:
                continue
            if sample.image is not None and rest.isdecimal():
                self.further[key] = (whole, sample.image)
            else:
                suffix = sample.image[0] if sample.image else ".txt" if sample.text is not None else ".json"
                self.unread[f".{rest}{suffix}"] += 1
            del self.samples[key]


def _scan(
    path: Path, split: str | None, captions: Sequence[str] | None, problems: list[Problem]
) -> tuple[Any, dict[str, int]]:
    """The index of a shard, and how many members are not read by the end of their name."""
    scan = _Scan(path, split, captions, problems)
    try:
        with open_file(path) as file:
            scan.members(file)
    except OSError as error:
        scan.damaged(f"cannot be read ({error.strerror or error})")
    scan.put_right()
    samples, further = scan.samples.values(), scan.further.values()
    images = [sample.image or ("", -1, 0) for sample in samples] + [image for _, image in further]
    texts = [s.text if s.text is not None else s.described for s in samples] + [None] * len(further)
    keys, items = [*scan.samples, *scan.further], [*scan.samples, *(key for key, _ in further)]
    offsets, sizes = [image[1] for image in images], [image[2] for image in images]
    table = pa.table([keys, items, texts, offsets, sizes], schema=SCHEMA)
    return table, dict(scan.unread)
