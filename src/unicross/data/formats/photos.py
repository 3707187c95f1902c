"""Photographs whose captions lie inside them or beside them, as photo programs and Google Takeout write them.

The captions of `a.jpg`, in this order: its sidecars `a.xmp` and `a.jpg.xmp` (Lightroom, darktable), Takeout's
`a.jpg.json` or `a.jpg.supplemental-metadata.json` (`description`), then what is in the file (`embedded.py`).
Equal texts count once; keywords are a caption where there is no other. Photographs without any are images
alone. First-level folders called train, val, dev or test are splits. `image_id` is the path relative to the
root. Read only by name: `data.format=photos`.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unicross.data.formats.embedded import NOTHING, Said, captions_of, embedded_captions, xmp_captions
from unicross.data.formats.rows import SPLIT_NAMES
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.records import Problem, ReadOptions, Record, Records
from unicross.data.walk import walk
from unicross.errors import DataError
from unicross.reading import LARGEST_SETTINGS, read_bytes, read_text

NO_TEXT: tuple[None] = (None,)
THREADS = 8
"""They wait for the disk together."""
TAKEOUT = ".supplemental-metadata"
"""What Takeout puts between the picture's name and `.json`; of long names it keeps the beginning only."""


def find(root: Path) -> list[Path]:
    """Nothing: a folder of pictures is read so where the user says it."""
    del root
    return []


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of a folder of photographs. Raises DataError for a folder that cannot be read."""
    del options
    if not root.is_dir():
        raise DataError(f"{root}: photos are read from a folder: give the one that holds them")
    files = [Path(entry.path) for entry in walk(root, _refuse)]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    sidecars = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".xmp"}
    takeout = _takeout(path for path in files if path.suffix.lower() == ".json")
    problems: list[Problem] = []

    def captions(image: Path) -> list[str]:
        beside = (sidecars.get(image.with_suffix("")), sidecars.get(image))
        said = [_sidecar(path, problems) for path in beside if path is not None]
        if image in takeout:
            said.append(Said(_description(takeout[image], problems), []))
        return captions_of([*said, *embedded_captions(image).values()])

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(captions, images))
    records = [
        Record(str(image), image.relative_to(root).as_posix(), image, text, _split(image, root))
        for image, texts in zip(images, found, strict=True)
        for text in (texts or NO_TEXT)
    ]
    used = {image.with_suffix("") for image in images} | set(images)
    read_from = [path for stem, path in sidecars.items() if stem in used]
    return Records.of(
        records, [*read_from, *(takeout[image] for image in images if image in takeout)]
    ), problems


def _takeout(files: Any) -> dict[Path, Path]:
    """The JSON file of each picture: `a.jpg.json`, or `a.jpg.supplemental-metadata.json` or a beginning of
    it."""
    by_image = {}
    for path in files:
        name = path.name.removesuffix(path.suffix)
        stem, dot, last = name.rpartition(".")
        if dot and TAKEOUT.startswith(f".{last}"):
            name = stem
        by_image[path.with_name(name)] = path
    return by_image


def _sidecar(path: Path, problems: list[Problem]) -> Said:
    try:
        return xmp_captions(read_bytes(path, LARGEST_SETTINGS))
    except OSError as error:
        problems.append(Problem("not read", str(path), f"cannot be read ({error.strerror or error})"))
        return NOTHING


def _description(path: Path, problems: list[Problem]) -> list[str]:
    try:
        content = json.loads(read_text(path, encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(Problem("not read", str(path), f"cannot be read ({error})"))
        return []
    text = content.get("description") if isinstance(content, dict) else None
    return [text] if isinstance(text, str) else []


def _refuse(folder: str, error: OSError) -> None:
    raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _split(path: Path, root: Path) -> str | None:
    first = path.relative_to(root).parts[0]
    return first if first in SPLIT_NAMES and path.parent != root else None
