"""What formats that are files of rows and lines share: usual names of columns and folders; reading text."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unicross.errors import DataError

IMAGE_COLUMNS = ("image", "image_path", "filepath", "file", "filename", "file_name", "path", "image_name")
CAPTION_COLUMNS = ("caption", "captions", "text", "sentence", "title", "description", "comment")
"""Names of columns, those that count first at the front: of several, the first one is read."""

IMAGE_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",  # the original archive is spelled this way
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
)
"""Folders beside a captions file in which its images are looked for."""

SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "dev", "test"})
"""Folders, and words in the names of shards, that say which split is in them."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Names, as the file spells them, of the columns that matter; None for one that is not there."""

    image: str | None
    caption: str | None
    split: str | None
    image_id: str | None


def find_columns(names: Sequence[str]) -> ColumnNames:
    """Which columns say what, by the usual names in any case."""
    spelled = {name.strip().lower(): name for name in reversed(names)}

    def first(usual: Sequence[str]) -> str | None:
        return next((spelled[name] for name in usual if name in spelled), None)

    return ColumnNames(first(IMAGE_COLUMNS), first(CAPTION_COLUMNS), first(["split"]), first(["image_id"]))


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
