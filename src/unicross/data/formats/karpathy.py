"""Karpathy's JSON: `dataset_flickr8k.json`, `dataset_flickr30k.json`, `dataset_coco.json`.

(Karpathy & Fei-Fei, CVPR 2015.) `image_id` is the file name. COCO's `restval` is a split of its own:
the usual training set is `train+restval`. Images lie beside the file, in `images/` or under `filepath`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unicross.data.formats.json_file import json_kind, load_json
from unicross.data.formats.rows import find_image, image_folders
from unicross.data.records import Problem, ReadOptions, Record, Records
from unicross.errors import DataError

OF_HUGGING_FACE = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""Files of other data sets that are called like these."""


def find(root: Path) -> list[Path]:
    """Files that may be Karpathy's: `root` itself, or `dataset*.json` in it."""
    if root.is_file():
        return [root] if root.suffix == ".json" and json_kind(root) in ("karpathy", None) else []
    named = sorted(path for path in root.glob("dataset*.json") if path.name not in OF_HUGGING_FACE)
    return [path for path in named if json_kind(path) in ("karpathy", None)]


def read(path: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of a Karpathy JSON file. Raises DataError where it is not one."""
    content = load_json(path, options.encoding)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path}: not Karpathy's JSON: no list of `images` in it")
    records: list[Record] = []
    problems: list[Problem] = []
    first_place: dict[str, str] = {}
    folders = image_folders(path.parent)
    for number, entry in enumerate(images):
        where = f"{path}: images[{number}]"
        fields = _fields(entry)
        if fields is None:
            problems.append(Problem("bad line", where, "needs filename, split and sentences[].raw"))
            continue
        name, folder, split, captions = fields
        if name in first_place:
            text = f"{name} is there twice (first as {first_place[name]})"
            problems.append(Problem("duplicate id", where, text, split))
            continue
        first_place[name] = f"images[{number}]"
        image = find_image(name, [f / folder for f in folders] + folders if folder else folders)
        records += [Record(where, name, image, caption, split) for caption in captions or [""]]
    return Records.of(records, [path]), problems


def _fields(entry: Any) -> tuple[str, str, str, list[str]] | None:
    """File name, folder ("" for none), split and captions of one image; None where it lacks any."""
    match entry:
        case {"filename": str(name), "split": str(split), "sentences": list(sentences)}:
            captions = [s.get("raw") if isinstance(s, dict) else None for s in sentences]
            folder = entry.get("filepath", "")
            texts = [caption for caption in captions if isinstance(caption, str)]
            if len(texts) == len(captions) and isinstance(folder, str):
                return name, folder, split, texts
    return None
