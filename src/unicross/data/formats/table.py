"""CSV, TSV, JSONL and JSON with an image column, a caption column or both.

Several rows of one image are several captions of it; in JSON a caption may be a list. Optional columns:
`split`, and `image_id` or `item_id`: rows of one item are its images and captions. JSON may have lists or
objects of images and captions, too. An empty image cell makes a text alone. JSON is a list of objects, or
one object of captions by picture. Kaggle's `captions.txt` (Flickr8k) and `results.csv` (Flickr30k,
separated by `|`) are such tables. The id of an item is that column, or its first image as written. Tables
that are called after splits, side by side or in folders of that name, are one data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from unicross.data.formats.json_file import json_files, json_kind
from unicross.data.formats.rows import (
    SAMPLE,
    SPLIT_NAMES,
    ColumnNames,
    check_columns,
    content_of,
    find_columns,
    find_image,
    flattened,
    image_folders,
    unread_columns,
)
from unicross.data.formats.shards import split_of
from unicross.data.formats.table_lines import Line, delimiter_of, read_lines_of
from unicross.data.items import PLAIN_KIND, CaptionKind
from unicross.data.languages import kind_of, language_of
from unicross.data.records import BY_NAME, Problem, ReadOptions, Record, Records, describe
from unicross.errors import DataError
from unicross.reading import open_file

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
MOST_NESTED = 50
"""Names inside objects that are looked at and told."""


class Part(NamedTuple):
    """One of the tables of a data set."""

    path: Path
    split: str | None
    """Of rows that do not say it themselves."""
    prefix: str = ""
    """What ids begin with: pictures in the folders of two tables may have the same name."""


def find(root: Path) -> list[Path]:
    """Tables at `root`: the file itself, or `root` where they make splits, or those in the folder."""
    if root.is_file():
        return [root] if _is_table(root) else []
    return [root] if split_tables(root) else _tables(root)


def split_tables(root: Path) -> list[Part]:
    """The tables in a folder, or one in each of its folders, that are called after splits; [] for fewer than
    two."""
    beside = {path: split_of(path.stem) for path in _tables(root)}
    named = [Part(path, split) for path, split in beside.items() if split]
    if len(named) > 1 and len({part.split for part in named}) == len(named):
        return named
    folders = sorted(path for path in root.iterdir() if path.name in SPLIT_NAMES and path.is_dir())
    inside = {folder: _tables(folder) for folder in folders}
    if beside or len(folders) < 2 or any(len(tables) != 1 for tables in inside.values()):
        return []
    return [Part(tables[0], folder.name, f"{folder.name}/") for folder, tables in inside.items()]


def _tables(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    files = [path for path in files if not path.name.startswith(".")]
    files += [path for path in json_files(folder) if _is_table(path)]
    return files + [path for path in [folder / "captions.txt"] if path.is_file() and is_text_table(path)]


def _is_table(path: Path) -> bool:
    match path.suffix.lower():
        case ".json":
            return json_kind(path) in ("objects", "by picture")
        case ".txt":
            return is_text_table(path)
        case suffix:
            return suffix in SUFFIXES


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says, before it is made records."""

    path: Path
    columns: ColumnNames
    names: Sequence[str]
    """All columns, in the order of the file."""
    lines: Sequence[Line]
    """Cells by column, with the place of the line in the file: `:7`, or `[7]` in a list."""
    problems: list[Problem]


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of a table, or of all that make splits. Raises DataError for one that cannot be used."""
    return read_parts(split_tables(root) if root.is_dir() else [Part(root, None)], options)


def read_parts(parts: Sequence[Part], options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of some tables. Raises DataError where one of them cannot be used."""
    records: list[Record] = []
    problems: list[Problem] = []
    all_names: dict[str, None] = {}
    with_captions: set[str] = set()
    for part in parts:
        table = read_table(part.path, options)
        names = [*table.names, *_nested(table)]
        all_names |= dict.fromkeys(names)
        with_captions |= {name for name in table.columns.captions if _has_caption(table, name)}
        contents = {
            name: content_of(value_of(cells, name) for _, cells in table.lines[:SAMPLE]) for name in names
        }
        check_columns(part.path, table.columns, contents, options)
        records += _records(table, part)
        problems += table.problems + unread_columns(part.path, table.names, table.columns)
    for name in dict.fromkeys(options.captions or ()):
        if name not in with_captions:
            what = f"no row has a caption in {name} (data.caption){_alike(name, all_names)}"
            problems.append(Problem("not read", str(parts[0].path), what))
    return Records.of(records, [part.path for part in parts], several=True), problems


def _nested(table: Table) -> list[str]:
    """Names of what is inside the objects of a column: `en.label`."""
    inside = (
        f"{name}.{key}"
        for _, cells in table.lines[:SAMPLE]
        for name, value in cells.items()
        if isinstance(value, dict)
        for key in value
    )
    return list(dict.fromkeys(inside))[:MOST_NESTED]


def _has_caption(table: Table, name: str) -> bool:
    return any(
        value is not None and str(value).strip()
        for value in flattened(value_of(cells, name) for _, cells in table.lines)
    )


def _alike(column: str, names: Iterable[str]) -> str:
    """Where the columns of the same field in other languages are told."""
    kind = kind_of(column)
    others = [name for name in names if name != column and kind_of(name).field == kind.field]
    spoken = [name for name in others if kind_of(name).language]
    return f": there are {', '.join(spoken)}" if kind.language and spoken else ""


def _records(table: Table, part: Part) -> Iterator[Record]:
    columns, path = table.columns, part.path
    folders = image_folders(path.parent)
    images: dict[str, Path] = {}
    for place, cells in table.lines:
        names = image_names(cells, columns.images)
        for name in names:
            if name not in images:
                images[name] = find_image(name, folders)
        item = cell(cells, columns.item)
        item = item or f"{part.prefix}{names[0] if names else path.name + place}"
        split = cell(cells, columns.split) or part.split
        first = images[names[0]] if names else None
        for caption, kind in captions(cells, columns):
            yield Record(f"{path}{place}", item, first, caption, split, kind)
        for name in names[1:]:
            yield Record(f"{path}{place}", item, images[name], None, split)


def read_table(path: Path, options: ReadOptions = BY_NAME) -> Table:
    """The lines of a table. Raises DataError where no column is known or the file cannot be parsed."""
    problems: list[Problem] = []
    lines = read_lines_of(path, options, problems)
    names = list(dict.fromkeys(name for _, cells in lines for name in cells))
    if not lines:
        raise DataError(f"{path}: no rows that can be read{f': {describe(problems)}' if problems else ''}")
    columns = find_columns(names, options)
    sound = []
    for place, cells in lines:
        objects = [name for name in columns.captions if _has_object(value_of(cells, name))]
        objects += [name for name in columns.images if not _are_names(value_of(cells, name))]
        if objects:
            what = f"{objects[0]} must be text, or a list of texts, not an object"
            problems.append(Problem("bad line", f"{path}{place}", what))
        else:
            sound.append((place, cells))
    return Table(path, columns, names, sound, problems)


def _has_object(value: Any) -> bool:
    inner = value if isinstance(value, list) else [value]
    return any(isinstance(one, dict | list) for one in inner)


def _are_names(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return not any(isinstance(one, dict | list) for one in inner)


def value_of(cells: dict[str, Any], name: str | None) -> Any:
    """The value of a column, or where dots lead to in nested data: `sentences.raw` is that of each
    sentence."""
    if name is None or name in cells:
        return cells.get(name) if name is not None else None
    value: Any = cells
    for part in name.split("."):
        if isinstance(value, list):
            value = [one.get(part) if isinstance(one, dict) else None for one in value]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def cell(cells: dict[str, Any], column: str | None) -> str:
    """A cell as text, "" where there is none."""
    value = value_of(cells, column)
    return "" if value is None else str(value).strip()


def image_names(cells: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """The images that a row names, each once: cells, lists of names, or objects of them."""
    values = flattened(value_of(cells, column) for column in columns)
    names = ("" if value is None else str(value).strip() for value in values)
    return list(dict.fromkeys(name for name in names if name))


def captions(cells: dict[str, Any], columns: ColumnNames) -> list[tuple[str | None, CaptionKind]]:
    """One entry a caption, "" for an empty one; one of None where JSON has none (null, or no such key).

    Of several columns, those that are empty are left out unless all are.
    """
    language = language_of(cell(cells, columns.language))
    texts: list[tuple[str | None, CaptionKind]] = []
    for column, kind in zip(columns.captions, columns.kinds, strict=True):
        value = value_of(cells, column)
        if value is None:
            continue
        kind = replace(kind, language=language) if language else kind
        entries = value if isinstance(value, list) else [value]
        texts += [("" if entry is None else str(entry).strip(), kind) for entry in entries] or [("", kind)]
    if len(columns.captions) > 1 and any(text for text, _ in texts):
        texts = [(text, kind) for text, kind in texts if text]
    return texts or [(None, PLAIN_KIND)]


def is_text_table(path: Path) -> bool:
    """Whether a `.txt` file begins with a header of an image and a caption column."""
    if path.suffix.lower() != ".txt":
        return False
    try:
        with open_file(path) as file:
            header = file.readline(1000).decode("utf-8-sig", "replace")
    except OSError:
        return False
    columns = find_columns(header.strip().split(delimiter_of(header.strip())))
    return bool(columns.images) and bool(columns.captions)
