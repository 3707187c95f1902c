"""Rows of what one can train on: a table, COCO's file, shards, Parquet and the others of `data/formats`.

A row's path is that of the picture's file; of a picture in a shard it is the shard's path and the picture's
place in it, and size and time are those of the shard. The other columns of a table become user columns; so do
`item`, `field` and `language` where items have several images, or captions of several kinds; a table's own
column `item` or `field` is called `item_` or `field_` then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from unicross.data.formats import FORMATS, find_sources
from unicross.data.formats.folder import TEXT_SUFFIXES
from unicross.data.formats.rows import find_image, image_folders
from unicross.data.formats.shards import ShardImage
from unicross.data.image_source import ImageFile, ImageSource
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.items import CaptionKind
from unicross.data.load import open_source
from unicross.data.places import home_of
from unicross.data.records import BY_NAME, ReadOptions
from unicross.data.walk import walk
from unicross.embed import Failure
from unicross.errors import DataError
from unicross.store.base import RESERVED, Row, make_id
from unicross.store.catalog import LONGEST_TEXT, Catalog, read_captions, read_catalog
from unicross.store.filters import Value

ITEM = "item"
"""The column that says which item a row is of."""

FIELD = "field"
"""The column that says of which kind a caption is: a title, a description."""

IN_FOLDERS = (".tar", ".parquet", ".arrow")
"""Files that make a folder without pictures a source."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a place is read, where a user says it: its format, a name in `FORMATS`, and its columns."""

    format: str | None = None
    options: ReadOptions = BY_NAME


AS_FOUND = Reading()


def require_place(place: Path) -> None:
    """Raise DataError unless there is a file or folder."""
    if not place.exists():
        raise DataError(f"{place}: no such file or folder: give a folder of pictures, a table, or shards")


def read_rows(place: Path, captions: Path | None, reading: Reading = AS_FOUND) -> Catalog:
    """The rows of a folder of pictures, with the texts of a captions file if there is one, or of a source.

    With `reading` a folder is read as a source, too. Without it, captions that lie in a folder of pictures
    are not taken but listed. Raises DataError where they cannot be read, and for captions of a source, which
    says its own.
    """
    require_place(place)
    packed = reading != AS_FOUND or _is_packed(place)
    if packed and captions is not None:
        raise DataError(
            f"{place} is read with its own captions, so {captions} cannot be added: leave out --captions, or "
            "give the folder of the pictures and nothing of how it is read"
        )
    if packed or (captions is None and home_of(place) != place):  # what the hub has says its captions too
        return _read_source(place, reading)
    catalog = read_catalog(place, captions)
    left = _captions_left(place, catalog.images.values()) if captions is None else []
    return replace(catalog, failures=(*catalog.failures, *left))


def _captions_left(folder: Path, pictures: Iterable[Row]) -> list[Failure]:
    """Captions in a folder that stay where they are, as only its pictures are taken."""
    sources = [(name, path) for name, path in find_sources(folder) if not FORMATS[name].any_folder]
    if not sources:
        stems = {Path(row.path).stem for row in pictures}
        files = (Path(entry.path) for entry in walk(folder.resolve(), lambda *_: None))
        texts = (file for file in files if file.suffix.lower() in TEXT_SUFFIXES)
        beside = next((text for text in texts if {text.stem, Path(text.stem).stem} & stems), None)
        sources = [("folder", beside)] if beside is not None else []
    return [
        Failure(str(path), f"captions that are not taken: add data.format={name} to have them")
        for name, path in sources
    ]


def _is_packed(place: Path) -> bool:
    """Whether it is a file, or a folder of shards without pictures beside them."""
    if not place.is_dir():
        return place.is_file()
    suffixes = {Path(entry.name).suffix.lower() for entry in walk(place.resolve(), lambda *_: None)}
    return not suffixes & IMAGE_SUFFIXES and bool(suffixes & set(IN_FOLDERS))


def _read_source(place: Path, reading: Reading) -> Catalog:
    place = place.resolve()
    source = open_source(place, reading.format, reading.options)
    loaded = source.items(None, "skip")
    is_table = source.format == "table" and place.is_file() and place.suffix.lower() != ".json"
    grouped = bool((loaded.items.image_counts > 1).any()) or bool(loaded.items.kinds)
    reserved = RESERVED | ({ITEM, FIELD} if grouped else set())
    extra = _columns(place, reserved, reading.options) if is_table else {}
    images: dict[str, Row] = {}
    texts: dict[str, Row] = {}
    pictures: dict[str, ImageSource] = {}
    problems = [p for p in loaded.problems if p.stops or not is_table]  # a table's columns are read here
    failures = [Failure(p.where, f"{p.kind}: {p.what}") for p in problems]
    look = lru_cache(maxsize=None)(lambda file: (os.stat(file), file.parent))  # a shard is looked at once
    folders: set[Path] = set()
    for index in range(len(loaded.items)):
        item = loaded.items[index]
        captions = [caption[:LONGEST_TEXT] for caption in item.captions]
        of_item: dict[str, Value] = {ITEM: item.id} if grouped else {}
        places = [_place(image) for image in item.images]
        for image, (path, file) in zip(item.images, places, strict=True):
            status, folder = look(file)
            folders.add(folder)
            first = captions[0] if captions else ""
            id = make_id("image", path)
            columns = extra.get(path, {}) | of_item
            images[id] = Row(id, "image", path, status.st_size, status.st_mtime, first, folder.name, columns)
            pictures[path] = image
        path = places[0][0] if places else ""
        for number, caption in enumerate(captions):
            id = make_id("text", path, caption)
            of_text = of_item | (_kind_columns(item.kinds[number]) if item.kinds else {})
            texts[id] = Row(id, "text", path, caption=caption, extra=extra.get(path, {}) | of_text)
    root = str(home_of(Path(os.path.commonpath(folders) if folders else place.parent)))
    captioned = frozenset(id for id, row in images.items() if row.caption or row.extra)
    alone = int((loaded.items.has_text & ~loaded.items.has_image).sum())
    return Catalog(root, images, captioned, texts or None, tuple(failures), pictures, alone)


def _kind_columns(kind: CaptionKind) -> dict[str, Value]:
    columns: dict[str, Value] = {FIELD: kind.field or "", "language": kind.language or ""}
    return {name: value for name, value in columns.items() if value}


def _place(image: ImageSource) -> tuple[str, Path]:
    """What a row calls a picture, and the file that it is read from."""
    if isinstance(image, ImageFile):
        return str(image.path.absolute()), image.path.absolute()
    assert isinstance(image, ShardImage)
    shard = image.shards.paths[image.shards.locate(image.row)[0]]
    return f"{shard}/{image.name[len(f'{shard}: ') :]}", shard


def _columns(table: Path, reserved: frozenset[str], options: ReadOptions) -> dict[str, dict[str, Value]]:
    """User columns by the path of the picture."""
    folders = image_folders(table.parent)
    columns: dict[str, dict[str, Value]] = {}
    for caption in read_captions(table, skip_bad=True, reserved=reserved, options=options):
        if caption.image and caption.extra:
            path = str(find_image(caption.image, folders).absolute())
            columns.setdefault(path, {}).update(caption.extra)
    return columns
