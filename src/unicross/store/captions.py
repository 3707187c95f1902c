"""Texts to index beside the pictures, and user columns for their rows, from one file.

captions.csv, .tsv, .jsonl   as for training (`data/formats/table.py`): a column for the picture, one for
                             the text; every other column becomes a user column of the picture's row
                             (photographer, year, price ...)
*.token.txt                  Flickr's layout, `name.jpg#k<TAB>caption`
any other .txt               a text a line, belonging to no picture
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unicross.data.formats.rows import read_lines
from unicross.data.formats.table import SUFFIXES, captions, cell, is_text_table, read_table
from unicross.data.items import as_unicode
from unicross.errors import DataError
from unicross.store.base import Value, check_user_column

LONGEST_TEXT = 5_000
"""Characters of a text that are kept."""


@dataclass(frozen=True, slots=True)
class Caption:
    """One text of the file."""

    image: str
    """The picture's path, relative to the indexed folder, or its name; empty for a text alone."""
    text: str
    """Empty where the line only carries user columns."""
    extra: Mapping[str, Value] = field(default_factory=dict)


def read_captions(path: Path) -> list[Caption]:
    """All captions of a file. Raises DataError, with the line, for what cannot be understood."""
    if not path.is_file():
        raise DataError(f"captions file not found: {path}")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or is_text_table(path):
        return _table(path)
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


def _table(path: Path) -> list[Caption]:
    table = read_table(path)
    if table.problems:
        raise DataError(f"{table.problems[0]}: correct the line")
    image, text = table.columns.image, table.columns.caption
    user = [name for name in table.names if name not in (image, text)]
    columns = {name: _column_name(path, name) for name in user}
    types = {name: _common_type(record.get(name) for _, record in table.lines) for name in user}
    return [
        Caption(
            as_unicode(cell(record, image)),
            as_unicode(said or "").strip()[:LONGEST_TEXT],
            {
                columns[name]: _cast(record[name], types[name])
                for name in user
                if record.get(name) not in (None, "")
            },
        )
        for _, record in table.lines
        for said in captions(record, text)
    ]


def _column_name(path: Path, name: str) -> str:
    column = re.sub(r"\W+", "_", name.strip().lower()).strip("_")
    column = f"{column}_" if column in ("id", "kind", "path", "size", "mtime", "album", "vector") else column
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
