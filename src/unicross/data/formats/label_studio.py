"""Label Studio's JSON export of captioning tasks: each task has a picture and annotations with texts.

Texts are those of `TextArea` regions. A task that nobody has annotated yet is an image alone; skipped
(`was_cancelled`) annotations do not count. Pictures are looked for beside the export by the path that the
task gives, without Label Studio's own part of it. `image_id` is that path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from unicross.data.formats.json_file import json_files, json_kind, load_json
from unicross.data.formats.rows import find_image, image_folders, is_picture_name
from unicross.data.records import Problem, ReadOptions, Record, Records
from unicross.errors import DataError

UPLOADED = re.compile(r"^.*/?data/(?:local-files/\?d=|upload/(?:\d+/)?)")
"""What Label Studio puts before the paths of pictures."""
HASH = re.compile(r"^[0-9a-f]{8}-")
"""And before the names of those that were uploaded."""


def find(root: Path) -> list[Path]:
    """Exports at `root`: the file itself, or those in the folder."""
    files = [root] if root.is_file() and root.suffix == ".json" else json_files(root)
    return [path for path in files if json_kind(path) == "label studio"]


def read(path: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of an export. Raises DataError where it is none."""
    tasks = load_json(path, options.encoding)
    if not isinstance(tasks, list):
        raise DataError(f"{path}: not Label Studio's JSON: no list of tasks")
    records: list[Record] = []
    problems: list[Problem] = []
    folders = image_folders(path.parent)
    for number, task in enumerate(tasks):
        where = f"{path}[{number}]"
        data = task.get("data") if isinstance(task, dict) else None
        name = _picture(data, next(iter(options.images or ()), None)) if isinstance(data, dict) else None
        if name is None:
            problems.append(Problem("bad line", where, "a task without a picture in its data"))
            continue
        image = find_image(name, folders)
        if not image.is_file():
            image = find_image(HASH.sub("", Path(name).name), folders)
        records += [Record(where, name, image, text) for text in _texts(task) or [None]]
    return Records.of(records, [path]), problems


def _picture(data: dict[str, Any], column: str | None) -> str | None:
    """The path of a task's picture, without what Label Studio puts before it."""
    values = [data.get(column)] if column else [data.get("image"), *data.values()]
    for value in values:
        if isinstance(value, str) and is_picture_name(path := UPLOADED.sub("", unquote(value))):
            return path.partition("?")[0].rpartition("://")[2]
    return None


def _texts(task: dict[str, Any]) -> list[str | None]:
    texts: list[str | None] = []
    annotations = task.get("annotations") or task.get("completions") or ()
    for annotation in annotations if isinstance(annotations, list) else ():
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        results = annotation.get("result")
        for result in results if isinstance(results, list) else ():
            value = result.get("value") if isinstance(result, dict) else None
            text = value.get("text") if isinstance(value, dict) else None
            texts += [one for one in (text if isinstance(text, list) else [text]) if isinstance(one, str)]
    return texts
