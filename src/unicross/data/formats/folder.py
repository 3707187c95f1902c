"""A folder of images, each with its captions in a text file, one caption a line.

The captions of `a.jpg` are in `a.txt`, `a.jpg.txt`, `a.caption`, or as `caption` in `a.json`, beside it; or
in a folder beside its own: `images/a.jpg` and `captions/a.txt`. Images without such a file are images only,
text files without an image are texts only. First-level folders called train, val, dev or test are splits.
img2dataset writes such folders (`files`); what it could not download is counted. The id of an item is the
path relative to the root. With `data.item=folder` each folder is an item, with all images and text files in
it: a product with its photographs and `title.txt`, `tags.de.txt`, whose names say field and language.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from unicross.data.formats.downloads import failed_downloads
from unicross.data.formats.embedded import embedded_captions
from unicross.data.formats.rows import SPLIT_NAMES, read_lines, read_text
from unicross.data.formats.shards import described, named_nowhere
from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.items import CaptionKind
from unicross.data.languages import kind_of
from unicross.data.records import Problem, ReadOptions, Record, Records
from unicross.data.walk import walk
from unicross.errors import DataError
from unicross.wording import counted

TEXT_SUFFIXES = (".txt", ".caption", ".captions")
"""Files of captions, those that count first at the front. After them comes `.json`."""

SIDE_FOLDERS = frozenset(
    (
        *("images", "image", "imgs", "img", "pictures", "photos", "jpg"),
        *("captions", "caption", "texts", "text", "txt", "labels", "annotations"),
    )
)
"""Names of folders, in lower case, that part pictures from their words: without them the paths are alike."""

BY_FOLDER = "folder"
"""What `data.item` says where each folder is an item."""

LOOKED_INTO = 20
"""Images alone that are looked into for captions inside them."""


def find(root: Path) -> list[Path]:
    """`root` where it is a folder with anything in it that this format reads."""
    if not root.is_dir():
        return []
    suffixes = (Path(entry.name).suffix.lower() for entry in walk(root, _refuse))
    return [root] if any(suffix in IMAGE_SUFFIXES or suffix in TEXT_SUFFIXES for suffix in suffixes) else []


def read(root: Path, options: ReadOptions) -> tuple[Records, list[Problem]]:
    """Records of a folder. Raises DataError for a text file that cannot be decoded, and an unreadable
    folder."""
    files = [Path(entry.path) for entry in walk(root, _refuse)]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    problems, notes = failed_downloads(root)
    captions, of_files = _captions(files, options)
    problems += of_files
    if options.captions and not captions:
        raise named_nowhere(root, options.captions)
    if options.item is not None:
        if options.item != BY_FOLDER:
            raise DataError(
                f"{root}: a folder of pictures has no column {options.item!r}: data.item={BY_FOLDER} makes "
                "each folder an item"
            )
        return _folders(root, images, captions, notes), problems
    text_of = _match(root, images, captions)
    records: list[Record] = []
    captioned: dict[Path, Path] = {}
    for image in images:
        text = text_of.get(image)
        if text in captioned:
            what = f"{text.name} would caption both {captioned[text].name} and {image.name}"
            problems.append(Problem("duplicate id", str(image), what, _split(image, root)))
            continue
        if text is not None:
            captioned[text] = image
        lines = captions[text] if text is not None else None
        records += _records(image, text, lines, root)
    for text, lines in captions.items():
        if text not in captioned and text.suffix.lower() != ".json":
            records += _records(None, text, lines, root)
    alone = [image for image in images if image not in text_of]
    problems += _offer(root, alone, alone_texts=len(captions) - len(captioned), pairs=len(captioned))
    return Records.of(records, [*captions, *notes]), problems


def _folders(root: Path, images: list[Path], captions: Mapping[Path, Lines], notes: list[Path]) -> Records:
    """Records of items that are folders."""
    records = [Record(str(path), _item(path, root), path, None, _split(path, root)) for path in images]
    kinds = {path: kind_of(path.with_suffix("").name) for path in captions}
    if len({kind.field for kind in kinds.values()}) == 1:  # as of one column: its name says nothing
        kinds = {path: CaptionKind(language=kind.language) for path, kind in kinds.items()}
    for path, lines in captions.items():
        records += [
            Record(f"{path}:{number}", _item(path, root), None, line, _split(path, root), kinds[path])
            for number, line in lines
        ]
    return Records.of(records, [*captions, *notes], several=True)


def _item(path: Path, root: Path) -> str:
    return path.parent.relative_to(root).as_posix()


Lines = list[tuple[int, str]]
"""Captions with the numbers of their lines."""


def _captions(files: Iterable[Path], options: ReadOptions) -> tuple[dict[Path, Lines], list[Problem]]:
    """The captions of all text files, and of JSON files that have some."""
    captions: dict[Path, Lines] = {}
    problems: list[Problem] = []
    for path in files:
        suffix = path.suffix.lower()
        if suffix in TEXT_SUFFIXES and options.captions is None:
            lines = enumerate(read_lines(path, options.encoding), start=1)
            captions[path] = [(number, line) for number, line in lines if line.strip()] or [(1, "")]
        elif suffix == ".json":
            try:
                said = described(json.loads(read_text(path, options.encoding)), options.captions)
            except (DataError, ValueError, RecursionError):
                continue  # it may be anything; what is not read is counted
            if said:
                captions[path] = [(1, text) for text in said]
    return captions, problems


def _match(root: Path, images: Iterable[Path], captions: Mapping[Path, Lines]) -> dict[Path, Path]:
    """The file with the captions of each image that has one."""
    order = {suffix: rank for rank, suffix in enumerate((*TEXT_SUFFIXES, ".json"))}
    by_stem: dict[Path, Path] = {}
    for path in sorted(captions, key=lambda path: order[path.suffix.lower()]):
        by_stem.setdefault(path.with_suffix(""), path)
    text_of = {}
    for image in images:
        takeout = image.with_name(f"{image.name}.supplemental-metadata")
        if found := next((by_stem[k] for k in (image, image.with_suffix(""), takeout) if k in by_stem), None):
            text_of[image] = found
    used = set(text_of.values())
    images_left = _by_key(root, (image for image in images if image not in text_of))
    texts_left = _by_key(root, (path for path in captions if path not in used))
    for key, pictures in images_left.items():
        texts = texts_left.get(key, ())
        if len(pictures) == len(texts) == 1:
            text_of[pictures[0]] = texts[0]
    return text_of


def _by_key(root: Path, paths: Iterable[Path]) -> dict[tuple[str, ...], list[Path]]:
    """Paths by what is left of them without suffixes and without the folders that part pictures from
    words."""
    by_key: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        stem = path.with_suffix("")
        if stem.suffix.lower() in IMAGE_SUFFIXES:
            stem = stem.with_suffix("")
        *folders, name = stem.relative_to(root).parts
        key = (*(folder for folder in folders if folder.lower() not in SIDE_FOLDERS), name)
        by_key.setdefault(key, []).append(path)
    return by_key


def _offer(root: Path, alone: list[Path], *, alone_texts: int, pairs: int) -> list[Problem]:
    """What to say where pictures have no captions but could have."""
    problems = []
    inside = Counter(place for image in alone[:LOOKED_INTO] for place in embedded_captions(image))
    if inside:
        places = " and ".join(inside)
        what = f"captions inside the pictures ({places}): data.format=photos reads them"
        problems.append(Problem("not read", str(root), what))
    if not pairs and alone and alone_texts:
        counts = f"{counted(len(alone), 'picture')} and {counted(alone_texts, 'text')}"
        what = (
            f"no text goes with a picture: {counts} are alone. "
            f"The captions of {alone[0].name} would be in {alone[0].stem}.txt or {alone[0].name}.txt, "
            "or in a folder captions/ beside images/"
        )
        problems.append(Problem("not read", str(root), what))
    return problems


def _refuse(folder: str, error: OSError) -> None:
    raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _records(image: Path | None, text: Path | None, lines: Lines | None, root: Path) -> list[Record]:
    file = image or text
    assert file is not None
    item, split = file.relative_to(root).as_posix(), _split(file, root)
    if lines is None:
        return [Record(str(file), item, image, None, split)]
    return [Record(f"{text}:{number}", item, image, line, split) for number, line in lines]


def _split(path: Path, root: Path) -> str | None:
    folders = [name for name in path.relative_to(root).parts[:-1] if name.lower() not in SIDE_FOLDERS]
    return folders[0] if folders and folders[0] in SPLIT_NAMES else None
