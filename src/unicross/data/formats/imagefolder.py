"""Hugging Face's `imagefolder`: pictures, and beside them `metadata.csv`, `.jsonl` or `.parquet`.

A metadata file names the pictures of its folder and of those below in a column `file_name` (or one that ends
so: `image_file_name`). First-level folders and words in the path that name a split are splits. `image_id` is
the path of the picture below the root.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from unicross.data.formats.shards import split_of
from unicross.data.formats.table import Part, read_parts
from unicross.data.records import Problem, ReadOptions, Records
from unicross.data.walk import walk
from unicross.reading import open_file

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


def find(root: Path) -> list[Path]:
    """`root` where it is a folder with metadata files in it or in its folders, or such a file."""
    return [root] if _metadata(root) else []


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of all metadata files. Raises DataError for one that cannot be used."""
    files = _metadata(root)
    parts = []
    for path in files:
        folder = "" if root.is_file() else path.parent.relative_to(root).as_posix()
        parts.append(Part(path, split_of(folder), f"{folder}/" if folder not in ("", ".") else ""))
    if options.images is None and files and (column := _file_name(files[0])):
        options = replace(options, images=(column,))
    return read_parts(parts, options)


def _metadata(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.name in NAMES and _file_name(root) else []
    paths = (Path(entry.path) for entry in walk(root, lambda *_: None) if entry.name in NAMES)
    return [path for path in paths if path.is_file() and _file_name(path)]


def _file_name(path: Path) -> str | None:
    """The column with the names of pictures; None for another kind of table."""
    try:
        if path.suffix == ".parquet":
            names = pq.read_schema(path).names
        else:
            with open_file(path) as file:
                line = file.readline(100_000).decode("utf-8-sig", "replace")
            names = list(json.loads(line)) if path.suffix == ".jsonl" else next(csv.reader([line]), [])
    except (OSError, ValueError, TypeError, csv.Error, pa.ArrowException):
        return None
    alike = [name for name in names if str(name).strip() == FILE_NAME or str(name).endswith(f"_{FILE_NAME}")]
    return FILE_NAME if FILE_NAME in alike else next(iter(alike), None)
