"""What readers hand over: rows (one image, one caption or both) and the problems that they met.

A reader only says what its files say; `reading.py` groups, checks and splits, the same for every format.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from unicross.errors import DataError

Kind = Literal[
    "missing image", "unreadable image", "empty caption", "duplicate id", "split overlap", "bad line"
]

IMAGE_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",  # the original archive is spelled this way
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
)
"""Folders beside a captions file in which its images are looked for."""

SHOWN_PER_KIND = 3


class Row(NamedTuple):
    """One statement of a captions file. Rows of one `image_id` make one item."""

    where: str
    """`file:line` for messages."""
    image_id: str
    image: Path | None
    """None for a text alone."""
    caption: str | None
    """None for an image alone; an empty text is a problem."""
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data: its kind, where it stands (`file:line` or the image) and what it is."""

    kind: Kind
    where: str
    what: str
    split: str | None = None
    """The split that it concerns; None where it concerns them all."""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}: {self.what}"


def problems_error(root: str, problems: Sequence[Problem]) -> DataError:
    """One error for all problems, and what to do."""
    advice = "Repair them, or go on without them: data.on_error=skip"
    return DataError(f"{root}: the data have problems: {describe(problems)}\n{advice}")


def describe(problems: Sequence[Problem]) -> str:
    """All problems counted by kind, then the first few of each kind, one a line."""
    counts = Counter(problem.kind for problem in problems)
    lines = [", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.most_common())]
    for kind, n in counts.most_common():
        shown = [problem for problem in problems if problem.kind == kind][:SHOWN_PER_KIND]
        lines += [f"  {problem}" for problem in shown]
        if n > len(shown):
            lines.append(f"  ... and {n - len(shown)} more of this kind")
    return "\n".join(lines)


def image_folders(folder: Path) -> list[Path]:
    """Where the images of a captions file in `folder` may lie; the folder itself comes last."""
    return [*(folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder]


def find_image(name: str, folders: Iterable[Path]) -> Path:
    """The first existing file called `name` (a relative or absolute path); else the first guess."""
    guesses = [folder / name for folder in folders]
    return next((path for path in guesses if os.path.isfile(path)), guesses[0])


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, without line ends. Raises DataError."""
    return read_text(path).removesuffix("\n").split("\n")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises DataError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
