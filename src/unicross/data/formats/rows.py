"""What formats that are files of rows and lines share: which columns say what, where pictures lie, text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import charset_normalizer

from unicross.data.images import IMAGE_SUFFIXES
from unicross.data.items import CaptionKind
from unicross.data.languages import kind_of
from unicross.data.records import BY_NAME, Problem, ReadOptions
from unicross.errors import DataError
from unicross.reading import LARGEST_TEXT, read_bytes

IMAGE_COLUMNS = (
    *("image", "image_path", "filepath", "file", "filename", "file_name", "path", "image_name"),
    *("jpg", "png", "webp"),  # img2dataset calls encoded pictures so
    "images",
)
ITEM_COLUMNS = ("image_id", "item_id")
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

LIKELY_ENCODINGS = ("cp1252", "utf_16", "cp1250", "cp1251", "gb18030", "shift_jis", "euc_kr", "big5")
"""What text that is not UTF-8 is guessed to be in."""

FEWEST_TO_GUESS = 8
"""Bytes of lines with special letters; less says nothing of an encoding."""

SAMPLE = 200
"""Values of a column that are looked at to tell what it holds."""

Content = Literal["nothing", "pictures", "addresses", "numbers", "texts"]


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Names, as the file spells them, of the columns that matter; None for one that is not there."""

    images: tuple[str, ...]
    """Of several, each holds images of its own; none where there are only texts."""
    captions: tuple[str, ...]
    """In the order in which their captions come; none where there are only pictures."""
    split: str | None = None
    item: str | None = None
    language: str | None = None

    def known(self) -> list[str]:
        """All of them that there are."""
        names = (*self.images, *self.captions, self.split, self.item, self.language)
        return [name for name in names if name is not None]

    @property
    def kinds(self) -> tuple[CaptionKind, ...]:
        """The kind of the captions of each column; of one column, its language alone is worth saying."""
        kinds = tuple(kind_of(name) for name in self.captions)
        if len(kinds) == 1:
            return (CaptionKind(language=kinds[0].language),)
        return kinds


def find_columns(names: Sequence[str], options: ReadOptions = BY_NAME) -> ColumnNames:
    """Which columns say what: those that `options` names, else those with the usual names, in any case."""
    spelled = {name.strip().lower(): name for name in reversed(names)}

    def first(usual: Sequence[str]) -> str | None:
        return next((spelled[name] for name in usual if name in spelled), None)

    captions = options.captions
    if captions is None:
        usual = first([name for name in CAPTION_COLUMNS if spelled.get(name) not in (options.images or ())])
        captions = () if usual is None else (usual,)
    images = options.images
    if images is None:
        usual = first(IMAGE_COLUMNS)
        images = () if usual is None else (usual,)
    return ColumnNames(
        images,
        captions,
        options.split or first(["split"]),
        options.item or first(ITEM_COLUMNS),
        options.language,
    )


def check_columns(
    where: Path, columns: ColumnNames, contents: Mapping[str, Content], options: ReadOptions
) -> None:
    """Raise DataError, with all columns and what to say, where pictures or captions would be passed over.

    `contents` says what each column holds that is there.
    """
    listed = ", ".join(contents)
    for key, name in (
        *(("image", name) for name in options.images or ()),
        *(("caption", name) for name in options.captions or ()),
        ("split_column", options.split),
        ("item", options.item),
        ("language", options.language),
    ):
        if name is not None and not {name, name.partition(".")[0]} & set(contents):
            raise DataError(f"{where}: no column {name!r} (data.{key}) among {listed}")
    unknown = {name: content for name, content in contents.items() if name not in columns.known()}
    pictures = [name for name, content in unknown.items() if content in ("pictures", "addresses")]
    texts = [name for name, content in unknown.items() if content == "texts"]
    require_columns(where, columns, contents)
    addresses = next((n for n in columns.images or pictures[:1] if contents.get(n) == "addresses"), None)
    if addresses is not None:
        raise DataError(
            f"{where}: the column {addresses!r} holds addresses of pictures, which are not fetched: download "
            "them with img2dataset and give the folder that it writes"
        )
    if not columns.images and options.images is None and pictures:
        raise DataError(
            f"{where}: no image column is known by its name among {listed}. Say which one it is, perhaps "
            f"data.image={pictures[0]}; data.image=[] reads texts alone"
        )
    if not columns.captions and options.captions is None and texts:
        raise DataError(
            f"{where}: no caption column is known by its name among {listed}. Say which one it is, or which "
            f"ones: data.caption=COLUMN, perhaps {_likely(texts)}; data.caption=[] reads pictures without "
            "words"
        )


def _likely(texts: Sequence[str]) -> str:
    """Which of the columns with texts to propose: one in all its languages, else the first."""
    spoken = [name for name in texts if "." in name and kind_of(name).language]
    if not spoken:
        return next((name for name in texts if name.lower() != "id"), texts[0])
    return f"[{','.join(name for name in spoken if kind_of(name).field == kind_of(spoken[0]).field)}]"


def require_columns(where: Path, columns: ColumnNames, names: Iterable[str]) -> None:
    """Raise DataError where neither an image nor a caption column is known."""
    if not columns.images and not columns.captions:
        usual = f"{' or '.join(IMAGE_COLUMNS)}; {' or '.join(CAPTION_COLUMNS)}"
        raise DataError(
            f"{where}: no image and no caption column among {', '.join(names)}. Say which they are: "
            "data.image=COLUMN data.caption=COLUMN. A table without a header needs one in its first line. "
            f"Known by themselves are {usual}"
        )


def content_of(values: Iterable[Any]) -> Content:
    """What a column holds, by the first of its values that are there."""
    texts = []
    numbers = 0
    for value in flattened(values):
        if value is None or value == "":
            continue
        if isinstance(value, bool | int | float) or _is_number(str(value)):
            numbers += 1
        else:
            texts.append(value)
        if numbers + len(texts) == SAMPLE:
            break
    if not texts:
        return "numbers" if numbers else "nothing"
    names = [value for value in texts if isinstance(value, str) and is_picture_name(value)]
    if 2 * len(names) >= len(texts) + numbers:
        return "addresses" if all(is_address(name) for name in names) else "pictures"
    links = [value for value in texts if isinstance(value, str) and is_address(value)]
    return "addresses" if 2 * len(links) > len(texts) + numbers else "texts"


def flattened(values: Iterable[Any]) -> Iterator[Any]:
    """Values, and those in lists and objects in their place."""
    for value in values:
        if isinstance(value, list):
            yield from flattened(value)
        elif isinstance(value, dict):
            yield from flattened(value.values())
        else:
            yield value


def unread_columns(where: Path, names: Sequence[str], columns: ColumnNames) -> list[Problem]:
    """One problem that names the columns of which nothing is read; none where all are."""
    known = {name.partition(".")[0] for name in columns.known()} | set(columns.known())
    if unknown := [name for name in names if name not in known]:
        some = ", ".join(unknown[:12]) + (f" and {len(unknown) - 12} more" if len(unknown) > 12 else "")
        return [Problem("not read", str(where), f"the columns {some}")]
    return []


def is_address(name: str) -> bool:
    """Whether it is an address on the web."""
    return re.match(r"\s*https?://", name) is not None


def is_picture_name(name: str) -> bool:
    """Whether a text is the name of a picture file by its end."""
    return len(name) < 1000 and Path(name.strip().partition("?")[0]).suffix.lower() in IMAGE_SUFFIXES


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d[\d.,:/ -]*\s*", text) is not None


def image_folders(folder: Path) -> list[Path]:
    """Where the images of a captions file in `folder` may lie; the folder itself comes last."""
    return [*(folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder]


def find_image(name: str, folders: Iterable[Path]) -> Path:
    """The first existing file called `name` (a relative or absolute path); else the first guess.

    A path of Windows is looked for by its back slashes too, and without its drive by any end of it.
    """
    guesses = [folder / name for folder in folders]
    if "\\" in name:
        guesses = [folder / end for folder in folders for end in _ends(PureWindowsPath(name))] + guesses
    return next((path for path in guesses if _is_file(path)), guesses[0])


def _ends(path: PureWindowsPath) -> list[Path]:
    parts = [part for part in path.parts if part != path.anchor]
    starts = range(len(parts)) if path.anchor else [0]
    return [Path(*parts[start:]) for start in starts]


def _is_file(path: Path) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a null byte in it
        return False


def read_lines(path: Path, encoding: str | None = None) -> list[str]:
    """The lines of a text file, without line ends. Raises DataError."""
    return read_text(path, encoding).removesuffix("\n").split("\n")


def read_text(path: Path, encoding: str | None = None) -> str:
    """The text of a file in an encoding; None: UTF-8 with or without its mark, or UTF-16 with it.

    Raises DataError, which names the line and the encoding that it looks like.
    """
    try:
        data = read_bytes(path, LARGEST_TEXT)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if encoding is None:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") and len(data) > 3 else "utf-8-sig"
    elif encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        start = getattr(error, "start", 0)
        line = data.count(b"\n", 0, start) + 1
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DataError(f"{path}:{line}: not {name} (byte {start}): {_advice(data, encoding)}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _advice(data: bytes, encoding: str) -> str:
    """What to do about text that is not in the encoding."""
    if encoding != "utf-8-sig":
        return "give the encoding that it is in as data.encoding"
    special = [line for line in data.split(b"\n")[:100_000] if not line.isascii()]
    sound = sum(_decodes(line) for line in special)
    if sound:
        return (
            f"{len(special) - sound} of {len(special)} lines with special letters are in another encoding "
            "than the others: save it as UTF-8"
        )
    if sum(map(len, special)) < FEWEST_TO_GUESS:
        return "save it as UTF-8, or give its encoding as data.encoding"
    guess = charset_normalizer.from_bytes(
        b"\n".join(special)[:100_000], cp_isolation=list(LIKELY_ENCODINGS)
    ).best()
    if guess is None:
        return "save it as UTF-8, or give its encoding as data.encoding"
    if guess.encoding == "cp1250" and _decodes(data, "cp1252"):
        # Short texts fit both; the languages of Western Europe are the more frequent.
        return "it looks like cp1252 or cp1250: data.encoding=cp1252 reads it so, or save it as UTF-8"
    return f"it looks like {guess.encoding}: data.encoding={guess.encoding} reads it so, or save it as UTF-8"


def _decodes(line: bytes, encoding: str = "utf-8") -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
