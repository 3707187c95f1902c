"""A folder of images, each with its captions in a `.txt` file of the same name, one caption a line.

Images without such a file are images alone, `.txt` files without an image are texts alone. First-level
folders called train, val, dev or test are splits. `image_id` is the path relative to the root.
"""

from __future__ import annotations

from pathlib import Path

from unicross.data.formats.rows import SPLIT_NAMES, read_lines
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.records import Problem, Record, Records
from unicross.data.walk import walk
from unicross.errors import DataError


def find(root: Path) -> list[Path]:
    """`root` where it is a folder with anything in it that this format reads."""
    if not root.is_dir():
        return []
    suffixes = (Path(entry.name).suffix.lower() for entry in walk(root, _refuse))
    return [root] if any(suffix in IMAGE_SUFFIXES or suffix == ".txt" for suffix in suffixes) else []


def read(root: Path) -> tuple[Records, list[Problem]]:
    """Records of a folder. Raises DataError for a text file that is not UTF-8, and an unreadable folder."""
    files = [Path(entry.path) for entry in walk(root, _refuse)]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    records: list[Record] = []
    problems: list[Problem] = []
    captioned: dict[Path, Path] = {}
    for image in images:
        stem = image.with_suffix("")
        text = texts.get(stem)
        if text is not None and stem in captioned:
            what = f"{text.name} would caption both {captioned[stem].name} and {image.name}"
            problems.append(Problem("duplicate id", str(image), what, _split(image, root)))
            continue
        captioned[stem] = image
        records += _records(image, text, root)
    for stem, text in texts.items():
        if stem not in captioned:
            records += _records(None, text, root)
    return Records.of(records), problems


def _refuse(folder: str, error: OSError) -> None:
    raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _records(image: Path | None, text: Path | None, root: Path) -> list[Record]:
    file = image or text
    assert file is not None
    image_id, split = file.relative_to(root).as_posix(), _split(file, root)
    if text is None:
        return [Record(str(file), image_id, image, None, split)]
    lines = [(number, line) for number, line in enumerate(read_lines(text), start=1) if line.strip()]
    return [Record(f"{text}:{number}", image_id, image, line, split) for number, line in lines or [(1, "")]]


def _split(path: Path, root: Path) -> str | None:
    first = path.relative_to(root).parts[0]
    return first if first in SPLIT_NAMES and path.parent != root else None
