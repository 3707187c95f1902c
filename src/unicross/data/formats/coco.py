"""COCO captions as they are downloaded: `annotations/captions_train2017.json` and the pictures in
`train2017/`.

A file holds `images` (`id`, `file_name`) and `annotations` (`image_id`, `caption`); VizWiz and others write
the same. Each file is a split, by its name. `image_id` is the file name. (Lin et al., ECCV 2014; Chen et al.
2015.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unicross.data.formats.json_file import json_files, json_kind, load_json
from unicross.data.formats.rows import find_image, image_folders
from unicross.data.formats.shards import split_of
from unicross.data.records import Problem, ReadOptions, Record, Records
from unicross.errors import DataError


def find(root: Path) -> list[Path]:
    """`root` where it is such a file, or a folder with them in it or in `annotations/`."""
    if root.is_file():
        return (
            [root] if root.suffix == ".json" and json_kind(root) in ("coco", "coco without captions") else []
        )
    return [root] if _files(root) else []


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    files = [*json_files(root), *json_files(root / "annotations")]
    # One that is called as COCO's are and cannot be read is not passed over: reading it says why.
    return [
        path
        for path in files
        if json_kind(path) == "coco" or (path.name.startswith("captions_") and json_kind(path) is None)
    ]


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of all files. Raises DataError for one that is not COCO's, or where two are of one split."""
    files = _files(root)
    splits = {path: split_of(path.stem) for path in files}
    for split in splits.values():
        same = [other.name for other in files if splits[other] == split]
        if len(same) > 1:
            raise DataError(f"{root}: {' and '.join(same)} are of one split: give one of them as data.root")
    records: list[Record] = []
    problems: list[Problem] = []
    for path, split in splits.items():
        records += _records(path, split, options, problems)
    return Records.of(records, files), problems


def _records(
    path: Path, split: str | None, options: ReadOptions, problems: list[Problem]
) -> Iterator[Record]:
    content = load_json(path, options.encoding)
    if json_kind(path) != "coco":
        raise DataError(
            f"{path}: no COCO file with captions (of instances or keypoints, perhaps): give one that is "
            "called captions_..., or the folder that holds `annotations`"
        )
    names: dict[Any, str] = {}
    for number, image in enumerate(content["images"]):
        where = f"{path}: images[{number}]"
        match image:
            case {"id": int() | str() as key, "file_name": str(name)} if name:
                if key in names:
                    what = f"the id {key!r} is that of {names[key]} too"
                    problems.append(Problem("duplicate id", where, what, split))
                else:
                    names[key] = name
            case _:
                problems.append(Problem("bad line", where, "needs id and file_name", split))
    folders = _image_folders(path)
    images = {name: find_image(name, folders) for name in names.values()}
    captioned = set()
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{number}]"
        match annotation:
            case {"image_id": int() | str() as key, "caption": str(caption)} if key in names:
                captioned.add(key)
                yield Record(where, names[key], images[names[key]], caption, split)
            case {"image_id": int() | str() as key, "caption": str()}:
                what = f"there is no image with the id {key!r}"
                problems.append(Problem("bad line", where, what, split))
            case _:
                problems.append(Problem("bad line", where, "needs image_id and caption", split))
    for key, name in names.items():
        if key not in captioned:
            yield Record(f"{path}: image {key}", name, images[name], None, split)


def _image_folders(path: Path) -> list[Path]:
    """Where the pictures of `captions_train2017.json` may lie: folders called `train2017` first."""
    roots = [path.parent.parent, path.parent] if path.parent.name == "annotations" else [path.parent]
    name = path.stem.rpartition("_")[2]
    named = [folder / name for root in roots for folder in image_folders(root)]
    split = split_of(path.stem)
    if split is not None and split != name:
        named += [folder / split for root in roots for folder in image_folders(root)]
    return [folder for folder in named if folder.is_dir()] + [
        f for root in roots for f in image_folders(root)
    ]
