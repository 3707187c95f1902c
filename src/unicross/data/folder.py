"""A folder of images, each with its captions in a `.txt` file of the same name, one caption a line.

Images without such a file are images alone, `.txt` files without an image are texts alone. First-level
folders called train, val, dev or test are splits. `image_id` is the path relative to the root.
"""

from __future__ import annotations

import os
from pathlib import Path

from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.rows import Problem, Row, read_lines
from unicross.errors import DataError

SPLIT_FOLDERS = frozenset({"train", "val", "valid", "validation", "dev", "test"})


def list_images(root: Path) -> list[Path]:
    """All image files under a folder, by their suffix, sorted; hidden files and folders are left out."""
    return [path for path in _files(root) if path.suffix.lower() in IMAGE_SUFFIXES]


def has_files(root: Path) -> bool:
    """Whether there is anything in the folder that this format reads."""
    return any(path.suffix.lower() in IMAGE_SUFFIXES | {".txt"} for path in _files(root))


def read(root: Path) -> tuple[list[Row], list[Problem]]:
    """Rows of a folder. Raises DataError for a text file that is not UTF-8."""
    files = _files(root)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    rows: list[Row] = []
    problems: list[Problem] = []
    used: dict[Path, Path] = {}
    for image in images:
        stem = image.with_suffix("")
        text = texts.get(stem)
        if text is not None and stem in used:
            what = f"{text.name} would caption both {used[stem].name} and {image.name}"
            problems.append(Problem("duplicate id", str(image), what, _split(image, root)))
            continue
        used[stem] = image
        rows += _rows(image, text, root)
    for stem, text in texts.items():
        if stem not in used:
            rows += _rows(None, text, root)
    return rows, problems


def _rows(image: Path | None, text: Path | None, root: Path) -> list[Row]:
    file = image or text
    assert file is not None
    image_id, split = file.relative_to(root).as_posix(), _split(file, root)
    if text is None:
        return [Row(str(file), image_id, image, None, split)]
    lines = [(number, line) for number, line in enumerate(read_lines(text), start=1) if line.strip()]
    return [Row(f"{text}:{number}", image_id, image, line, split) for number, line in lines or [(1, "")]]


def _split(path: Path, root: Path) -> str | None:
    first = path.relative_to(root).parts[0]
    return first if first in SPLIT_FOLDERS and path.parent != root else None


def _files(root: Path) -> list[Path]:
    """All files under a folder, through links too, but no folder twice. Raises DataError."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    found = []
    seen = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
        folders[:] = [name for name in folders if real[name] not in seen]
        seen.update(real.values())
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found
