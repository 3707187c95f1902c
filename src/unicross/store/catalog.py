"""What a folder of pictures and its captions file stand for: rows to be, without vectors.

The captions file adds texts beside the pictures, and user columns to their rows:

captions.csv, .tsv, .jsonl   as for training (`data/formats/table.py`): a column for the picture, one for
                             the text; every other column becomes a user column of the picture's row
                             (photographer, year, price ...)
*.token.txt                  Flickr's layout, `name.jpg#k<TAB>caption`
any other .txt               a text a line, belonging to no picture
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unicross.data.formats.rows import read_lines, require_columns
from unicross.data.formats.table import SUFFIXES, image_names, is_text_table, read_table
from unicross.data.formats.table import captions as captions_of
from unicross.data.image_source import ImageSource
from unicross.data.items import as_unicode
from unicross.data.records import BY_NAME, ReadOptions
from unicross.embed import Failure, FoundFile, find_pictures
from unicross.errors import DataError
from unicross.store.base import RESERVED, Row, check_user_column, make_id
from unicross.store.filters import Value
from unicross.wording import counted

LONGEST_TEXT = 5_000
"""Characters of a text that are kept."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A line of a captions file: a text, and what the file's other columns say of its picture."""

    image: str
    """The picture's path, relative to the indexed folder, or its name; empty for a text alone."""
    text: str
    """Empty where the line only carries user columns."""
    extra: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalog:
    """The rows that a folder and its captions file stand for, by id and without vectors."""

    root: str
    """The folder, absolute."""
    images: Mapping[str, Row]
    captioned: frozenset[str]
    """Ids of the pictures of which the captions file says something."""
    texts: Mapping[str, Row] | None
    """None without a captions file, or where it only holds columns."""
    failures: tuple[Failure, ...]
    """What could not be looked at, and captions of pictures that are not there."""
    pictures: Mapping[str, ImageSource] = field(default_factory=dict)
    """By the path of their row, pictures that may be no files of their own; of all others the path is one."""
    without_picture: int = 0
    """Items of a source that have texts alone."""

    @property
    def found(self) -> int:
        """How many rows they are."""
        return len(self.images) + len(self.texts or ())


def read_catalog(folder: Path, captions_file: Path | None) -> Catalog:
    """Walk a folder and read its captions. Raises DataError where one of them cannot be used."""
    files, failures = find_pictures(folder)
    root = folder.resolve()
    captions = read_captions(captions_file) if captions_file else []
    by_path, unmatched = _by_path(root, files, captions)
    images = [_image_row(file, by_path.get(str(file.path), ())) for file in files]
    return Catalog(
        str(root),
        {row.id: row for row in images},
        frozenset(row.id for row in images if row.path in by_path),
        _text_rows(files, by_path) if any(caption.text for caption in captions) else None,
        (*failures, *_unmatched(captions_file, unmatched)),
    )


def _by_path(
    root: Path, files: Sequence[FoundFile], captions: Iterable[Caption]
) -> tuple[dict[str, list[Caption]], list[str]]:
    """Captions by the absolute path of their picture ("" for none), and names that fit none or several."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.path.name, []).append(file.path)
    paths = {str(file.path) for file in files}
    by_path: dict[str, list[Caption]] = {}
    unmatched: set[str] = set()
    for caption in captions:
        path = str(root / caption.image) if caption.image else ""
        if path and path not in paths:
            named = Path(caption.image)
            candidates = [
                str(file)
                for file in by_name.get(named.name, [])
                if _end_alike(named.parts, file.relative_to(root).parts)
            ]
            if len(candidates) != 1:
                unmatched.add(caption.image)
                continue
            path = candidates[0]
        by_path.setdefault(path, []).append(caption)
    return by_path, sorted(unmatched)


def _end_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one path is the end of the other: a bare name, or a path from further up or down."""
    shared = min(len(one), len(other))
    return tuple(one[-shared:]) == tuple(other[-shared:])


def _unmatched(captions_file: Path | None, names: Sequence[str]) -> list[Failure]:
    if not names:
        return []
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    reason = (
        f"captions of {counted(len(names), 'picture')} not in the folder, or whose name several have: {some}"
    )
    return [Failure(str(captions_file), reason)]


def _image_row(file: FoundFile, captions: Sequence[Caption]) -> Row:
    path = str(file.path)
    extra: dict[str, Value] = {}
    for caption in captions:
        extra |= caption.extra
    first = next((caption.text for caption in captions if caption.text), "")
    return Row(make_id("image", path), "image", path, file.size, file.mtime, first, file.album, extra)


def _text_rows(files: Iterable[FoundFile], by_path: Mapping[str, Sequence[Caption]]) -> dict[str, Row]:
    albums = {str(file.path): file.album for file in files}
    rows = [
        Row(
            make_id("text", path, caption.text),
            "text",
            path,
            caption=caption.text,
            album=albums.get(path, ""),
            extra=caption.extra,
        )
        for path, captions in by_path.items()
        for caption in captions
        if caption.text
    ]
    return {row.id: row for row in rows}


def read_captions(
    path: Path,
    *,
    skip_bad: bool = False,
    reserved: frozenset[str] = RESERVED,
    options: ReadOptions = BY_NAME,
) -> list[Caption]:
    """All captions of a file. Raises DataError, with the line, for what cannot be understood.

    `skip_bad` leaves out bad lines of a table, for a caller who says what they are. A column of a table that
    has one of the `reserved` names is called by that name and `_`.
    """
    if not path.is_file():
        raise DataError(f"captions file not found: {path}")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or is_text_table(path):
        return _table(path, skip_bad, reserved, options)
    if suffix in (".txt", ".token", ""):
        return list(_plain(path))
    raise DataError(f"{path}: captions are read from .csv, .tsv, .jsonl and .txt, not from {suffix!r}")


def _plain(path: Path) -> Iterator[Caption]:
    lines = read_lines(path)
    flickr = re.match(r"[^\t]+#\d+\t", lines[0]) is not None
    for number, line in enumerate(lines, 1):
        if flickr and line.strip():
            match = re.fullmatch(r"([^\t]+)#\d+\t(.*)", line)
            if match is None:
                raise DataError(f"{path}:{number}: not of the form name.jpg#0<TAB>caption: correct the line")
            yield Caption(match[1], match[2].strip()[:LONGEST_TEXT])
        elif line.strip():
            yield Caption("", line.strip()[:LONGEST_TEXT])


def _table(path: Path, skip_bad: bool, reserved: frozenset[str], options: ReadOptions) -> list[Caption]:
    table = read_table(path, options)
    if table.problems and not skip_bad:
        raise DataError(f"{table.problems[0]}: correct the line")
    require_columns(path, table.columns, table.names)
    columns_read = table.columns
    read = {name.partition(".")[0] for name in (*columns_read.images, *columns_read.captions)}
    user = [name for name in table.names if name not in read]
    columns: dict[str, str] = {}
    for name in user:
        columns[name] = _column_name(path, name, reserved.union(columns.values()))
    types = {name: _common_type(record.get(name) for _, record in table.lines) for name in user}
    return [
        Caption(
            as_unicode(name),
            as_unicode(caption or "").strip()[:LONGEST_TEXT],
            {
                columns[name]: _cast(record[name], types[name])
                for name in user
                if record.get(name) not in (None, "")
            },
        )
        for _, record in table.lines
        for name in image_names(record, columns_read.images) or [""]
        for caption, _ in captions_of(record, columns_read)
    ]


def _column_name(path: Path, name: str, taken: frozenset[str]) -> str:
    column = re.sub(r"\W+", "_", name.strip().lower()).strip("_")
    while column in taken:
        column += "_"
    try:
        check_user_column(column)
    except Exception as error:
        raise DataError(f"{path}: {error}") from None
    return column


def _common_type(values: Iterable[Any]) -> type:
    """The narrowest of bool, int, float and str that holds all values that are there."""
    kinds = {_type(value) for value in values if value not in (None, "")}
    if len(kinds) == 1:
        return kinds.pop()
    return float if kinds and kinds <= {int, float} else str


def _type(value: Any) -> type:
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return type(value)
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value.strip()):
        return int
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,17}\.\d+", value.strip()):
        return float
    return str


def _cast(value: Any, kind: type) -> Value:
    if kind is str:
        return as_unicode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    result: Value = kind(value)
    return result
