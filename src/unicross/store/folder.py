"""The rows that a folder of pictures and a captions file stand for, and their embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unicross.embed import Encoder, Failure, FoundFile, embed_files, find_pictures
from unicross.store.base import Row, Value, make_id
from unicross.store.captions import Caption, read_captions


@dataclass(frozen=True)
class Wanted:
    """Rows to be, by id and without vectors."""

    root: str
    images: Mapping[str, Row]
    described: frozenset[str]
    """Ids of the pictures of which the captions file says something."""
    texts: Mapping[str, Row] | None
    """None without a captions file, or where it only holds columns."""
    failures: tuple[Failure, ...]
    """What could not be looked at, and captions of pictures that are not there."""


def read_folder(folder: Path, captions: Path | None) -> Wanted:
    """Walk a folder and read its captions. Raises DataError where one of them cannot be used."""
    files, failures = find_pictures(folder)
    root = folder.resolve()
    entries = read_captions(captions) if captions else []
    said, unknown = _by_path(root, files, entries)
    images = [_image(file, said.get(str(file.path), ())) for file in files]
    return Wanted(
        str(root),
        {row.id: row for row in images},
        frozenset(row.id for row in images if row.path in said),
        _texts(files, said) if any(entry.text for entry in entries) else None,
        (*failures, *_unknown(captions, unknown)),
    )


def embed_rows(
    model: Encoder, rows: Sequence[Row], done: Callable[[], object] = lambda: None
) -> tuple[list[Row], list[Failure]]:
    """The rows with their vectors, and those whose picture cannot be read. `done` is called once a row."""
    embedded: list[Row] = []
    failures: list[Failure] = []
    images = [row for row in rows if row.kind == "image"]
    results = embed_files(model, [Path(row.path) for row in images])
    for row, (_, vector) in zip(images, results, strict=True):
        if isinstance(vector, Failure):
            failures.append(vector)
        else:
            embedded.append(replace(row, vector=vector))
        done()
    texts = [row for row in rows if row.kind == "text"]
    vectors = model.encode_texts([row.caption for row in texts]) if texts else ()
    for row, vector in zip(texts, vectors, strict=True):
        embedded.append(replace(row, vector=vector))
        done()
    return embedded, failures


def _by_path(
    root: Path, files: Sequence[FoundFile], captions: Iterable[Caption]
) -> tuple[dict[str, list[Caption]], list[str]]:
    """Captions by the absolute path of their picture ("" for none), and the names of unknown pictures."""
    by_name: dict[str, list[str]] = {}
    for file in files:
        by_name.setdefault(file.path.name, []).append(str(file.path))
    known = {str(file.path) for file in files}
    result: dict[str, list[Caption]] = {}
    unknown: set[str] = set()
    for caption in captions:
        path = str(root / caption.image) if caption.image else ""
        if path and path not in known:
            said_as = Path(caption.image).parts
            may_be = [
                file
                for file in by_name.get(Path(caption.image).name, [])
                if _ends_alike(said_as, Path(file).relative_to(root).parts)
            ]
            if len(may_be) != 1:
                unknown.add(caption.image)
                continue
            path = may_be[0]
        result.setdefault(path, []).append(caption)
    return result, sorted(unknown)


def _ends_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one path is the end of the other: a bare name, or a path from further up or down."""
    shared = min(len(one), len(other))
    return tuple(one[-shared:]) == tuple(other[-shared:])


def _unknown(captions: Path | None, names: Sequence[str]) -> list[Failure]:
    if not names:
        return []
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    reason = (
        f"captions of {len(names)} pictures that are not in the folder, or whose name several have: {some}"
    )
    return [Failure(str(captions), reason)]


def _image(file: FoundFile, captions: Sequence[Caption]) -> Row:
    path = str(file.path)
    extra: dict[str, Value] = {}
    for caption in captions:
        extra |= caption.extra
    first = next((caption.text for caption in captions if caption.text), "")
    return Row(make_id("image", path), "image", path, file.size, file.mtime, first, file.album, extra)


def _texts(files: Iterable[FoundFile], said: Mapping[str, Sequence[Caption]]) -> dict[str, Row]:
    albums = {str(file.path): file.album for file in files}
    rows = [
        Row(
            make_id("text", path, caption.text),
            "text",
            path,
            caption=caption.text,
            album=albums.get(path, ""),
            extra=caption.extra,
        )
        for path, captions in said.items()
        for caption in captions
        if caption.text
    ]
    return {row.id: row for row in rows}
