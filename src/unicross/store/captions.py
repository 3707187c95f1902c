"""Texts to index beside the pictures, and user columns for their rows, from one file.

captions.csv, .tsv, .jsonl   a column for the picture, one for the text; every other column becomes a
                             user column of the picture's row (photographer, year, price ...)
*.token.txt                  Flickr's layout, `name.jpg#k<TAB>caption`
any other .txt               a text a line, belonging to no picture
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unicross.errors import DataError
from unicross.store.base import Value, check_user_column

IMAGE_COLUMNS = ("image", "image_name", "file", "filename", "file_name", "filepath", "path")
TEXT_COLUMNS = ("caption", "captions", "text", "comment", "title", "description", "sentence")
LONGEST_TEXT = 5_000
"""Characters of a text that are kept."""


@dataclass(frozen=True, slots=True)
class Caption:
    """One line of the file."""

    image: str
    """The picture's path, relative to the indexed folder, or its name; empty for a text alone."""
    text: str
    """Empty where the line only carries user columns."""
    extra: Mapping[str, Value] = field(default_factory=dict)


def read_captions(path: Path) -> list[Caption]:
    """All captions of a file. Raises DataError, with the line, for what cannot be understood."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"captions file not found: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable UTF-8 text file: {error}") from error
    lines = text.splitlines()
    match path.suffix.lower():
        case ".csv" | ".tsv" | ".jsonl":
            return _table(path, lines)
        case ".txt" | ".token" | "":
            return list(_plain(path, lines))
        case suffix:
            raise DataError(
                f"{path}: captions are read from .csv, .tsv, .jsonl and .txt, not from {suffix!r}"
            )


def _plain(path: Path, lines: Sequence[str]) -> Iterator[Caption]:
    flickr = bool(lines) and re.match(r"[^\t]+#\d+\t", lines[0]) is not None
    for number, line in enumerate(lines, 1):
        if flickr and line.strip():
            match = re.fullmatch(r"([^\t]+)#\d+\t(.*)", line)
            if match is None:
                raise DataError(f"{path}:{number}: not of the form name.jpg#0<TAB>caption: correct the line")
            yield Caption(match[1], match[2].strip()[:LONGEST_TEXT])
        elif line.strip():
            yield Caption("", line.strip()[:LONGEST_TEXT])


def _table(path: Path, lines: Sequence[str]) -> list[Caption]:
    records = list(_json_lines(path, lines) if path.suffix.lower() == ".jsonl" else _csv(path, lines))
    names = list(dict.fromkeys(name for _, record in records for name in record))
    image = _pick(names, IMAGE_COLUMNS)
    text = _pick(names, TEXT_COLUMNS)
    if records and image is None and text is None:
        raise DataError(
            f"{path}: no column for the picture ({', '.join(IMAGE_COLUMNS)}) nor for the text "
            f"({', '.join(TEXT_COLUMNS)}) among {', '.join(map(repr, names))}: rename one"
        )
    user = [name for name in names if name not in (image, text)]
    columns = {name: _column_name(path, name) for name in user}
    types = {name: _common_type(record.get(name) for _, record in records) for name in user}
    captions = []
    for _, record in records:
        extra = {
            columns[name]: _cast(record[name], types[name])
            for name in user
            if record.get(name) not in (None, "")
        }
        said = str(record.get(text) or "").strip()[:LONGEST_TEXT] if text else ""
        captions.append(Caption(str(record.get(image) or "").strip() if image else "", said, extra))
    return captions


def _csv(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader([line + "\n" for line in lines], delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if None in record:
                raise DataError(f"{path}:{reader.line_num}: more cells than columns: quote the caption")
            yield reader.line_num, record
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}: correct the line") from None


def _json_lines(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error}): correct the line") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: not a JSON object: write {{'image': ..., 'caption': ...}}")
        yield number, record


def _pick(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    lower = {name.strip().lower(): name for name in names}
    return next((lower[name] for name in wanted if name in lower), None)


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
    if isinstance(value, bool | int | float):
        return type(value)
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d{0,17})", value.strip()):
        return int
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,17}\.\d+", value.strip()):
        return float
    return str


def _cast(value: Any, kind: type) -> Value:
    if kind is str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    result: Value = kind(value)
    return result
