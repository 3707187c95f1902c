"""The lines of a table file as cells by column, whatever it is written in."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unicross.data.formats.json_file import load_json
from unicross.data.formats.rows import find_columns, read_text
from unicross.data.records import BY_NAME, Problem, ReadOptions
from unicross.errors import DataError
from unicross.reading import check_file

DELIMITERS = (",", "\t", "|", ";")

Line = tuple[str, dict[str, Any]]
"""The place of a line, `:7`, or `[7]` in a list, and its cells by column."""


def read_lines_of(path: Path, options: ReadOptions, problems: list[Problem]) -> list[Line]:
    """All lines; what cannot be read goes to `problems`. Raises DataError for a file that is no table."""
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return list(_json_lines(path, options, problems))
        case ".json":
            return list(_json_objects(path, options, problems))
        case ".parquet":
            return list(_parquet_rows(path))
        case _:
            return list(_csv_lines(path, options, problems))


def _json_lines(path: Path, options: ReadOptions, problems: list[Problem]) -> Iterator[Line]:
    for number, line in enumerate(read_text(path, options.encoding).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(Problem("bad line", f"{path}:{number}", f"not JSON: {error.msg}"))
            continue
        except (ValueError, RecursionError) as error:
            problems.append(Problem("bad line", f"{path}:{number}", f"not JSON that can be read: {error}"))
            continue
        if isinstance(cells, dict):
            yield f":{number}", cells
        else:
            problems.append(Problem("bad line", f"{path}:{number}", "not a JSON object"))


def _json_objects(path: Path, options: ReadOptions, problems: list[Problem]) -> Iterator[Line]:
    content = load_json(path, options.encoding)
    if isinstance(content, dict):
        content = [
            {"image": name, **(value if isinstance(value, dict) else {"caption": value})}
            for name, value in content.items()
        ]
    if not isinstance(content, list):
        raise DataError(f"{path}: neither a list of objects nor an object of captions by picture")
    for number, cells in enumerate(content):
        if isinstance(cells, dict):
            yield f"[{number}]", cells
        else:
            problems.append(Problem("bad line", f"{path}[{number}]", "not a JSON object"))


def _parquet_rows(path: Path) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_file(path)
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): write it again") from error
    for number, cells in enumerate(rows):
        yield f": row {number}", cells


def _csv_lines(path: Path, options: ReadOptions, problems: list[Problem]) -> Iterator[Line]:
    text = read_text(path, options.encoding)
    delimiter = delimiter_of(text.partition("\n")[0], options)
    lines = _parse(path, text, delimiter)
    header = [name.strip() for name in lines[0][1]] if lines else []
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise DataError(f"{path}:1: two columns are called {twice[0]!r}: rename or remove one")
    for number, cells in lines[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        cells = _mended(cells, header)
        if len(cells) == len(header):
            yield f":{number}", dict(zip(header, cells, strict=True))
            continue
        what = f"{len(cells)} cells, the header has {len(header)}: "
        what += f"put cells with {delimiter!r} in quotes" if len(cells) > len(header) else "some are missing"
        problems.append(Problem("bad line", f"{path}:{number}", what))


def _mended(cells: list[str], header: Sequence[str]) -> list[str]:
    """Flickr30k's `results.csv` lacks a separator in one row: `name| 4   A dog ...`."""
    is_short = header == ["image_name", "comment_number", "comment"] and len(cells) == 2
    match = re.fullmatch(r"\s*(\d+)\s+(\S.*)", cells[1]) if is_short else None
    return [cells[0], match[1], match[2]] if match else cells


def _parse(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Cells of every record with the number of the line that it begins on."""
    try:
        return _cells(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        reason = str(error)
    if delimiter in "\t|":  # such files often carry bare quotes
        try:
            return _cells(text, delimiter, csv.QUOTE_NONE)
        except csv.Error as error:
            raise DataError(f"{path}: not a table that can be read: {error}") from None
    raise DataError(f"{path}: quotes do not match ({reason}): double the quotes inside a cell")


def _cells(text: str, delimiter: str, quoting: Any) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    lines = []
    number = 1
    for cells in reader:
        lines.append((number, cells))
        number = reader.line_num + 1
    return lines


def delimiter_of(header: str, options: ReadOptions = BY_NAME) -> str:
    """The delimiter under which the header has the most columns that we know, of several the most columns."""

    def known(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in header.replace('"', "").split(delimiter)]
        columns = find_columns(names, options)
        return sum(name in names for name in columns.known()), len(names)

    return max(DELIMITERS, key=known)
