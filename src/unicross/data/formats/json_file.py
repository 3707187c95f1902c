"""JSON files: reading one, and telling by its content which format it is of.

Many formats are one `.json` file with a name that says nothing, so what is in it decides.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

from unicross.data.formats.rows import is_picture_name, read_text
from unicross.errors import DataError

JsonKind = Literal["karpathy", "coco", "coco without captions", "label studio", "objects", "by picture"]

LARGEST = 512 * 2**20
"""Bytes of a file that is looked into to tell its kind; a larger one has to be named with its format."""
MOST_FILES = 20
"""Files of a folder that are looked into: where there are more, they are notes of pictures."""


def load_json(path: Path, encoding: str | None = None) -> Any:
    """The content of a JSON file. Raises DataError."""
    try:
        return json.loads(read_text(path, encoding))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise DataError(f"{path}: not JSON that can be read: {error}") from None


def json_kind(path: Path) -> JsonKind | None:
    """What a JSON file holds; None for what is of no known kind or cannot be read."""
    try:
        status = path.stat()
        if not path.is_file() or status.st_size > LARGEST:
            return None
        return _kind_at(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return None


def json_files(folder: Path) -> list[Path]:
    """The JSON files right in a folder; none where they are so many that each is of a picture."""
    files = sorted(path for path in folder.glob("*.json") if path.is_file() and not path.name.startswith("."))
    return files if len(files) <= MOST_FILES else []


@functools.lru_cache(maxsize=64)
def _kind_at(path: Path, size: int, mtime: int) -> JsonKind | None:
    del size, mtime  # of the key: the file is looked into again once it changed
    try:
        return kind_of(load_json(path))
    except DataError:
        return None


def kind_of(content: Any) -> JsonKind | None:
    """What the content of a JSON file is."""
    match content:
        case {"images": list(), "annotations": list(annotations)}:
            captioned = any(isinstance(one, dict) and "caption" in one for one in annotations)
            return "coco" if captioned else "coco without captions"
        case {"images": list()}:
            return "karpathy"
        case [{"data": dict(), **rest}, *_] if "annotations" in rest or "completions" in rest:
            return "label studio"
        case [dict(), *_]:
            return "objects"
        case dict() if content and all(is_picture_name(name) for name in content):
            return "by picture"
    return None
