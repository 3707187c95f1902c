"""The original Flickr layouts: a token file (`name.jpg#k<TAB>caption`) and lists of names that make splits.

Flickr8k: `Flickr8k.token.txt`; `Flickr_8k.trainImages.txt`, also dev and test; images in `Images/`.
Flickr30k: `results_20130124.token`; lists `train.txt`, `val.txt`, `test.txt`, with or without `.jpg`.
A caption whose image is in no list is in no split. The id of an item is the file name.

Captions in further languages are in files of the same form beside it: `Flickr8k.token.de.txt`, or with the
language before `token`; those of the first file are English.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from unicross.data.formats.rows import find_image, image_folders, read_lines
from unicross.data.items import PLAIN_KIND, CaptionKind
from unicross.data.languages import language_of
from unicross.data.records import Problem, ReadOptions, Record, Records

TOKEN_FILES = ("Flickr8k.token.txt", "results_20130124.token", "Flickr30k.token.txt")
SPLIT_LISTS = {
    "train": ("Flickr_8k.trainImages.txt", "flickr30k_train.txt", "train.txt"),
    "dev": ("Flickr_8k.devImages.txt", "flickr30k_val.txt", "dev.txt", "val.txt"),
    "test": ("Flickr_8k.testImages.txt", "flickr30k_test.txt", "test.txt"),
}


def find(root: Path) -> list[Path]:
    """The captions file of a Flickr layout: `root` itself or the first one in it."""
    if root.is_file():
        return [root] if root.name in TOKEN_FILES or root.suffix == ".token" else []
    named = [root / name for name in TOKEN_FILES if (root / name).is_file()]
    return (named or sorted(root.glob("*.token")))[:1]


def read(tokens: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of a token file, split by the lists beside it. Raises DataError for an unreadable file."""
    captions, problems = _captions(tokens, options.encoding)
    others = _in_other_languages(tokens)
    if others:
        english = CaptionKind(language="en")
        captions = {name: [line._replace(kind=english) for line in lines] for name, lines in captions.items()}
    for language, path in others.items():
        further, of_file = _captions(path, options.encoding, CaptionKind(language=language))
        problems += of_file
        for name, lines in further.items():
            captions.setdefault(name, []).extend(lines)
    splits, listed_twice = _splits(tokens.parent, known=captions.keys())
    lists = [tokens.parent / name for names in SPLIT_LISTS.values() for name in names]
    folders = image_folders(tokens.parent)
    records: list[Record] = []
    for name, lines in captions.items():
        image = find_image(name, folders)
        for split in splits.get(name, {None: ""}):
            records += [Record(where, name, image, caption, split, kind) for where, caption, kind in lines]
    for name in (name for name in splits if name not in captions):
        image = find_image(name, folders)
        records += [Record(where, name, image, "", split) for split, where in splits[name].items()]
    return Records.of(records, [tokens, *others.values(), *lists]), problems + listed_twice


class Line(NamedTuple):
    """A caption with its place."""

    where: str
    caption: str
    kind: CaptionKind = PLAIN_KIND


def _in_other_languages(tokens: Path) -> dict[str, Path]:
    """Files of captions beside the first one, by their language."""
    stem = tokens.name.partition(".token")[0]
    beside = {path: path.name.removeprefix(stem).split(".") for path in tokens.parent.glob(f"{stem}.*")}
    words = {
        path: [word for word in parts if word not in ("", "token", "txt")] for path, parts in beside.items()
    }
    return {
        language: path
        for path in sorted(words)
        if path != tokens and "token" in beside[path] and len(words[path]) == 1
        for language in [language_of(words[path][0])]
        if language is not None
    }


def _captions(
    tokens: Path, encoding: str | None, kind: CaptionKind = PLAIN_KIND
) -> tuple[dict[str, list[Line]], list[Problem]]:
    """Name of the image -> its captions."""
    captions: dict[str, list[Line]] = {}
    problems = []
    for number, line in enumerate(read_lines(tokens, encoding), start=1):
        where = f"{tokens}:{number}"
        key, tab, caption = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if tab and mark and name:
            captions.setdefault(name.strip(), []).append(Line(where, caption, kind))
        elif line.strip():
            problems.append(Problem("bad line", where, f"expected name.jpg#k<TAB>caption, got {line[:60]!r}"))
    return captions, problems


def _splits(folder: Path, known: Collection[str]) -> tuple[dict[str, dict[str | None, str]], list[Problem]]:
    """Name of the image -> its splits, each with the place where it is listed."""
    splits: dict[str, dict[str | None, str]] = {}
    problems = []
    for split, where, name in _listed(folder):
        if name not in known and f"{name}.jpg" in known:  # Flickr30k's lists often leave the suffix out
            name = f"{name}.jpg"
        listed_at = splits.setdefault(name, {})
        if split in listed_at:
            first = listed_at[split].rpartition(":")[2]
            what = f"{name} is listed twice (first in line {first})"
            problems.append(Problem("duplicate id", where, what, split))
        listed_at.setdefault(split, where)
    return splits, problems


def _listed(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The lines of the lists of splits: the split, the place of the line, and the name of the image."""
    for split, file_names in SPLIT_LISTS.items():
        for path in (folder / name for name in file_names if (folder / name).is_file()):
            for number, line in enumerate(read_lines(path), start=1):
                if name := line.strip():
                    yield split, f"{path}:{number}", name
