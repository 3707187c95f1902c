"""The formats that are read. A new one is a file in this folder and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unicross.data.formats import (
    arrow,
    coco,
    flickr,
    folder,
    imagefolder,
    karpathy,
    label_studio,
    parquet,
    photos,
    table,
    tar,
)
from unicross.data.records import SAID_AS, Problem, ReadOptions, Records
from unicross.errors import DataError


@dataclass(frozen=True, slots=True)
class Format:
    """How data of one format are found and read."""

    looked_for: str
    """What it is known by, for people."""
    find: Callable[[Path], Sequence[Path]]
    """What there is of it at a path (a file or a folder); each one is a source of its own."""
    read: Callable[[Path, ReadOptions], tuple[Records, list[Problem]]]
    """Reads one source. Raises DataError where nothing of it can be read."""
    takes: frozenset[str]
    """The fields of `ReadOptions` that mean something to it."""
    order: int = 1
    """Formats are looked for from the least order on, until there are sources: what an earlier one knows is
    never taken for a later one's."""
    any_folder: bool = False
    """Whether it reads any folder that is said to be of this format, whatever is in it."""


ENCODING = frozenset({"encoding"})
COLUMNS = frozenset({"images", "captions", "split", "item", "language"})

FORMATS: dict[str, Format] = {
    "flickr": Format("Flickr8k.token.txt or results_20130124.token", flickr.find, flickr.read, ENCODING),
    "karpathy": Format("dataset*.json", karpathy.find, karpathy.read, ENCODING),
    "table": Format(
        "one .csv, .tsv, .jsonl or .json table, or several called train, val, test; "
        "a captions.txt with a header",
        table.find,
        table.read,
        COLUMNS | ENCODING,
    ),
    "label_studio": Format(
        "a JSON export of Label Studio with texts",
        label_studio.find,
        label_studio.read,
        ENCODING | {"images"},
    ),
    "tar": Format(
        ".tar shards of samples KEY.jpg, KEY.txt, KEY.json", tar.find, tar.read, frozenset({"captions"})
    ),
    "parquet": Format(
        ".parquet files with an image and a caption column", parquet.find, parquet.read, COLUMNS
    ),
    # Saved folders hold JSON and Arrow files of their own, which are no sources of another format.
    "arrow": Format(
        "a folder that Hugging Face datasets saved (save_to_disk)", arrow.find, arrow.read, COLUMNS, order=0
    ),
    # These two keep tables, too, which are theirs.
    "coco": Format("annotations/captions_*.json as COCO has them", coco.find, coco.read, ENCODING, order=0),
    "imagefolder": Format(
        "metadata.csv, .jsonl or .parquet with a column file_name",
        imagefolder.find,
        imagefolder.read,
        COLUMNS | ENCODING,
        order=0,
    ),
    # Most other formats keep their images in folders too.
    "folder": Format(
        "images, and .txt files of the same names",
        folder.find,
        folder.read,
        ENCODING | {"captions", "item"},
        order=2,
        any_folder=True,
    ),
    "photos": Format(
        "captions inside photographs or their sidecars; only where data.format=photos",
        photos.find,
        photos.read,
        frozenset(),
        order=3,
        any_folder=True,
    ),
}
"""By the name that `data.format` says."""


def require_root(root: Path) -> None:
    """Raise DataError where there is nothing at a path."""
    if not root.exists():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"{root}: no such file or folder{where}: give an existing one as data.root")


def detect(root: Path, format: str | None) -> tuple[str, Path]:
    """The format and the source (a file or a folder) to read. Raises DataError where that is not one."""
    require_root(root)
    if format is not None and format not in FORMATS:
        raise DataError(f"no data format {format!r}: data.format is one of {', '.join(FORMATS)}, or null")
    if format is not None and root.is_dir() == FORMATS[format].any_folder:
        return format, root  # whatever its name
    sources = [(name, path) for name, path in find_sources(root) if format in (None, name)]
    if not sources:
        known_by = "\n".join(f"  {f'{name}:':<13} {kind.looked_for}" for name, kind in FORMATS.items())
        raise DataError(
            f"{root}: no data{f' of format {format!r}' if format else ''} found. Looked for\n{known_by}"
        )
    if len(sources) > 1:
        listed = "\n".join(f"  {name}: {path}" for name, path in sources)
        raise DataError(
            f"{root}: several captions files:\n{listed}\nGive one of them as data.root, or say data.format"
        )
    return sources[0]


def find_sources(root: Path) -> list[tuple[str, Path]]:
    """All sources at a path, of the formats of the least order that has any."""
    for order in sorted({kind.order for kind in FORMATS.values()}):
        formats = {name: kind for name, kind in FORMATS.items() if kind.order == order}
        if sources := [(name, path) for name, kind in formats.items() for path in kind.find(root)]:
            return sources
    return []


def check_takes(root: Path, format: str, options: ReadOptions) -> None:
    """Raise DataError where something is said of the data that means nothing to their format."""
    takes = FORMATS[format].takes
    for field, key in SAID_AS.items():
        if getattr(options, field) is not None and field not in takes:
            raise DataError(
                f"{root}: data.{key} says nothing about data of format {format!r}: leave it out, or name "
                "another format as data.format"
            )
