"""CSV, TSV and JSONL with an image column, a caption column or both.

Several rows of one image are several captions of it; in JSONL a caption may be a list. Optional columns:
`split` and `image_id`. An empty image cell makes a text alone. Kaggle's `captions.txt` (Flickr8k) and
`results.csv` (Flickr30k, separated by `|`) are such tables. `image_id` is that column, or
the image as written.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicross.data.formats.rows import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    ColumnNames,
    find_columns,
    find_image,
    image_folders,
    read_text,
)
from unicross.data.records import Problem, Record, Records, describe
from unicross.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl")
DELIMITERS = (",", "\t", "|", ";")


def find(root: Path) -> list[Path]:
    """Tables at `root`: the file itself, or those in the folder, Kaggle's `captions.txt` among them."""
    if root.is_file():
        return [root] if root.suffix.lower() in SUFFIXES or is_text_table(root) else []
    files = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return files + [path for path in [root / "captions.txt"] if path.is_file() and is_text_table(path)]


@dataclass(frozen=True, slots=True)
class Table:
    """What a file says, before it is made records."""

    columns: ColumnNames
    names: Sequence[str]
    """All columns, in the order of the file."""
    lines: Sequence[tuple[int, dict[str, Any]]]
    """Cells by column, with the number of the line."""
    problems: list[Problem]


def read(path: Path) -> tuple[Records, list[Problem]]:
    """Records of a table. Raises DataError where no column is known or the file cannot be parsed."""
    table = read_table(path)
    columns = table.columns
    folders = image_folders(path.parent)
    images: dict[str, Path] = {}
    records: list[Record] = []
    for number, cells in table.lines:
        image_name = cell(cells, columns.image)
        if image_name and image_name not in images:
            images[image_name] = find_image(image_name, folders)
        for caption in captions(cells, columns.caption):
            image_id = cell(cells, columns.image_id) or image_name or f"{path.name}:{number}"
            split = cell(cells, columns.split) or None
            records.append(Record(f"{path}:{number}", image_id, images.get(image_name), caption, split))
    return Records.of(records), table.problems


def read_table(path: Path) -> Table:
    """The lines of a table. Raises DataError where no column is known or the file cannot be parsed."""
    problems: list[Problem] = []
    read_cells = _json_lines if path.suffix.lower() == ".jsonl" else _csv_lines
    lines = list(read_cells(path, problems))
    names = list(dict.fromkeys(name for _, cells in lines for name in cells))
    if not lines:
        raise DataError(f"{path}: no rows that can be read{f': {describe(problems)}' if problems else ''}")
    columns = find_columns(names)
    texts = [name for name in (columns.image, columns.caption) if name is not None]
    if not texts:
        raise DataError(
            f"{path}: no image and no caption column among {', '.join(names)}. Name them in the "
            f"first line: {' or '.join(IMAGE_COLUMNS)}; {' or '.join(CAPTION_COLUMNS)}"
        )
    sound = []
    for number, cells in lines:
        objects = [name for name in texts if isinstance(cells.get(name), dict)]
        if objects:
            what = f"{objects[0]} must be text (a caption may be a list of texts), not an object"
            problems.append(Problem("bad line", f"{path}:{number}", what))
        else:
            sound.append((number, cells))
    return Table(columns, names, sound, problems)


def cell(cells: dict[str, Any], column: str | None) -> str:
    """A cell as text, "" where there is none."""
    value = cells.get(column) if column is not None else None
    return "" if value is None else str(value).strip()


def captions(cells: dict[str, Any], column: str | None) -> list[str | None]:
    """One entry a caption, "" for an empty one; [None] where JSON has none (null, or no such key)."""
    value = cells.get(column) if column is not None else None
    if value is None:
        return [None]
    if isinstance(value, list):
        return ["" if caption is None else str(caption) for caption in value] or [""]
    return [cell(cells, column)]


def _json_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(Problem("bad line", f"{path}:{number}", f"not JSON: {error.msg}"))
            continue
        if isinstance(cells, dict):
            yield number, cells
        else:
            problems.append(Problem("bad line", f"{path}:{number}", "not a JSON object"))


def _csv_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, dict[str, Any]]]:
    text = read_text(path)
    delimiter = _delimiter(text.partition("\n")[0])
    lines = _parse(path, text, delimiter)
    header = [name.strip() for name in lines[0][1]] if lines else []
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise DataError(f"{path}:1: two columns are called {twice[0]!r}: rename or remove one")
    for number, cells in lines[1:]:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) == len(header):
            yield number, dict(zip(header, cells, strict=True))
        else:
            what = f"{len(cells)} cells, the header has {len(header)}: put cells with {delimiter!r} in quotes"
            problems.append(Problem("bad line", f"{path}:{number}", what))


def _parse(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Cells of every record with the number of the line that it begins on."""
    try:
        return _cells(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        if delimiter in "\t|":  # such files often carry bare quotes
            return _cells(text, delimiter, csv.QUOTE_NONE)
        raise DataError(f"{path}: quotes do not match ({error}): double the quotes inside a cell") from None


def _cells(text: str, delimiter: str, quoting: Any) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    lines = []
    number = 1
    for cells in reader:
        lines.append((number, cells))
        number = reader.line_num + 1
    return lines


def _delimiter(header: str) -> str:
    """The delimiter under which the header has the most columns that we know."""

    def known(delimiter: str) -> int:
        columns = find_columns(header.replace('"', "").split(delimiter))
        return sum(
            name is not None for name in (columns.image, columns.caption, columns.split, columns.image_id)
        )

    return max(DELIMITERS, key=known)


def is_text_table(path: Path) -> bool:
    """Whether a `.txt` file begins with a header of an image and a caption column."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(1000)
    columns = find_columns(header.strip().split(_delimiter(header.strip())))
    return columns.image is not None and columns.caption is not None
