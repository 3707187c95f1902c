"""What the members of a tar shard say: which picture and which captions belong to which key."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from unicross.data.formats.shards import described
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.items import as_unicode
from unicross.data.records import LISTS, Problem
from unicross.reading import LARGEST_SETTINGS, open_file

LARGEST_HEADER = 2**20
"""Bytes of what a tar says about a member: its long name and the like."""
PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
SCHEMA = pa.schema(
    {
        "key": pa.large_string(),
        "item": pa.large_string(),
        "captions": LISTS,
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)
"""Of an index: a row is a key, or a further image of one; its offset is -1 where there is no image."""


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
        if suffix == ".txt" and self.captions is not None:
            self.unread[suffix] += 1  # what is named is a field of a JSON member
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


def scan_shard(
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
