"""What formats with pictures in columns share (`parquet.py`, `arrow.py`): which columns say what.

Columns are found by their usual names (see `rows.py`): an image (bytes, Hugging Face's `{bytes, path}`, or a
path, or a list of paths), a caption (a text or a list of texts), perhaps `split` and `image_id` or `item_id`.
Rows without an image are texts only, rows without a caption images only. Only the small columns are read
beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unicross.batches import Indices
from unicross.data.formats.downloads import SUCCESS
from unicross.data.formats.leaves import ColumnFile, find_in, image_leaves, leaf_of, top
from unicross.data.formats.rows import (
    ColumnNames,
    find_image,
    image_folders,
    unread_columns,
)
from unicross.data.formats.shards import (
    FileRecords,
    ShardRows,
    join,
    numbered,
    relative_name,
    same_split,
    split_of,
)
from unicross.data.image_source import Files
from unicross.data.items import PLAIN_KIND, CaptionKind, Mask
from unicross.data.languages import language_of
from unicross.data.records import KINDS, LISTS, Problem, ReadOptions, Records, as_lists
from unicross.errors import DataError

STATUS = "status"
"""The column in which img2dataset says whether a picture could be downloaded."""


F = TypeVar("F", bound=ColumnFile)


def read_files(
    root: Path,
    paths: Sequence[Path],
    open_: Callable[[Path], F],
    embedded: Callable[[Sequence[Path], Sequence[F], Sequence[str]], ShardRows],
    options: ReadOptions,
) -> tuple[Records, list[Problem]]:
    """Records of some files; damaged ones are problems. Raises DataError for columns that do not do.

    `open_` opens one of the `paths`, which lie under `root`; `embedded` gives the pictures inside the opened
    files by the leaf of each that holds them ("" for none).
    """
    problems: list[Problem] = []
    several = False
    sound: list[Path] = []
    files: list[F] = []
    records: list[FileRecords] = []
    leaves: list[str] = []
    own_columns: list[str] = []
    image_paths: list[Path] = []
    for path in paths:
        try:
            file = open_(path)
            columns = find_in(path, file, options)
            leaf, pointers = image_leaves(path, file.schema, columns.images)
            has_image = file.present(leaf) if leaf else np.zeros(file.rows, bool)
            if pointers and not has_image.any():
                leaf = None
            pointers = () if leaf else pointers
            several |= columns.item is not None or not leaf
            small = (*columns.captions, columns.split, columns.item, columns.language)
            names = [top(name) for name in small if name is not None and top(name) in file.schema.names]
            noted = [STATUS] if leaf and STATUS in file.schema.names else []
            table = file.columns([*names, *pointers, *noted])
            file.close()
        except (OSError, pa.ArrowException) as error:
            what = f"cannot be read ({error}): copy or download it again"
            problems.append(Problem("damaged shard", str(path), what, split_of(relative_name(path, root))))
            continue
        if not problems or problems[-1].kind != "not read":  # all files have the same ones
            problems += unread_columns(path, file.schema.names, columns)
        of_file, paths_of_file = _records(path, root, table, columns, has_image, pointers)
        if noted:
            of_file = _downloaded(path, of_file, table, problems)
        sound.append(path)
        files.append(file)
        records.append(of_file)
        image_paths += paths_of_file
        leaves.append(leaf or "")
        own_columns.append(columns.images[0] if leaf and options.images else "")
    rows = embedded(sound, files, leaves)
    rows.own_columns = own_columns
    if not image_paths:
        return join(records, rows, rows.name, paths, several=several), problems
    if any(leaves) or len(image_paths) < sum(file.rows for file in files):
        raise DataError(f"{root}: some files hold paths of pictures and others do not: read them one by one")
    return join(records, Files(image_paths), rows.name, paths, several=several), problems


def _records(
    path: Path, root: Path, table: Any, columns: ColumnNames, has_image: Mask, pointers: Sequence[str]
) -> tuple[FileRecords, list[Path]]:
    """The records of a file, and the paths of their pictures where these are files of their own.

    A row that names several files makes a record for each of them, its captions with the first.
    """
    name, count = relative_name(path, root), len(has_image)
    ids = numbered(name, ":", pa.array(np.arange(count)).cast(pa.large_string()))
    split = same_split(split_of(name), count)
    image_paths: list[Path] = []
    row: Indices | None = None
    if pointers:
        names = _image_names(table, pointers, count)
        has_image = np.array([bool(of_row) for of_row in names], dtype=bool)
        folders = [*image_folders(path.parent), *image_folders(root if root.is_dir() else root.parent)]
        by_name = {image: find_image(image, folders) for of_row in names for image in of_row or [""]}
        image_paths = [by_name[image] for of_row in names for image in of_row or [""]]
        firsts = pa.array([of_row[0] if of_row else "" for of_row in names], pa.large_string())
        ids = pc.if_else(pa.array(has_image), firsts, ids)
        row = np.repeat(np.arange(count), [max(len(of_row), 1) for of_row in names])
    if columns.split is not None and top(columns.split) in table.column_names:
        split = pc.coalesce(_text(path, table, columns.split), split)
    if columns.item is not None and top(columns.item) in table.column_names:
        ids = pc.coalesce(_text(path, table, columns.item), ids)
    languages = None if columns.language is None else _text(path, table, columns.language).to_pylist()
    captions, kinds, kind = _joined(
        [_captions(path, table, name) for name in columns.captions], columns.kinds, languages, count
    )
    records = FileRecords(ids, captions, has_image, split, kinds=kinds, kind=kind)
    if row is None or len(row) == count:
        return records, image_paths
    again = pa.array(np.diff(row, prepend=-1) == 0)  # records of further pictures say nothing
    return replace(
        records,
        ids=ids.take(row),
        captions=pc.if_else(again, pa.scalar(None, LISTS), captions.take(row)),
        has_image=has_image[row],
        split=split.take(row),
        row=row,
        kind=None if kind is None else pc.if_else(again, pa.scalar(None, KINDS), kind.take(row)),
    ), image_paths


def _image_names(table: Any, pointers: Sequence[str], count: int) -> list[list[str]]:
    """The paths of pictures in each row, each once."""
    rows: list[dict[str, None]] = [{} for _ in range(count)]
    for pointer in pointers:
        for of_row, value in zip(rows, leaf_of(table, pointer).to_pylist(), strict=True):
            names = value if isinstance(value, list) else [value]
            of_row |= {str(name).strip(): None for name in names if name and str(name).strip()}
    return [list(of_row) for of_row in rows]


def _joined(
    columns: Sequence[Any], kinds: Sequence[CaptionKind], languages: Sequence[str | None] | None, count: int
) -> tuple[Any, tuple[CaptionKind, ...], Any]:
    """The captions of all columns, row by row, the kinds that there are, and the kind of each caption.

    What is empty in one of several columns is left out.
    """
    if not columns:
        return pa.nulls(count, LISTS), (), None
    if len(columns) == 1 and languages is None and kinds[0] == PLAIN_KIND:
        return columns[0], (), None
    numbers: dict[CaptionKind, int] = {}
    texts: list[list[str | None] | None] = []
    of_texts: list[list[int] | None] = []
    lists = [column.to_pylist() for column in columns]
    for row, in_row in enumerate(zip(*lists, strict=True)):
        language = language_of((languages[row] or "") if languages else "")
        own = [replace(kind, language=language) if language else kind for kind in kinds]
        there = [
            (text, numbers.setdefault(kind, len(numbers)))
            for kind, of_column in zip(own, in_row, strict=True)
            for text in of_column or ()
        ]
        said = [(text, kind) for text, kind in there if text and text.strip()] if len(columns) > 1 else there
        kept = said or there
        texts.append([text for text, _ in kept] if any(c is not None for c in in_row) else None)
        of_texts.append([kind for _, kind in kept] if texts[-1] is not None else None)
    return pa.array(texts, LISTS), tuple(numbers), pa.array(of_texts, KINDS)


def _downloaded(path: Path, records: FileRecords, table: Any, problems: list[Problem]) -> FileRecords:
    """Without the rows of img2dataset whose picture could not be downloaded, which are counted."""
    status = table.column(STATUS)
    if not (pa.types.is_string(status.type) or pa.types.is_large_string(status.type)):
        return records
    failed = ~records.has_image & np.asarray(pc.fill_null(pc.not_equal(status, SUCCESS), False))
    if not failed.any():
        return records
    what = f"{int(failed.sum())} of {len(failed)} pictures were not downloaded"
    problems.append(Problem("not read", str(path), what))
    return replace(records, dropped=failed)


def _text(path: Path, table: Any, leaf: str) -> Any:
    """A column as Arrow strings, nulls staying null."""
    try:
        return leaf_of(table, leaf).cast(pa.large_string()).combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"{path}: the column {leaf!r} must hold texts: {error}") from None


def _captions(path: Path, table: Any, name: str) -> Any:
    """A column of texts or of lists of texts as LISTS."""
    try:
        column = leaf_of(table, name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        texts = _text(path, table, name)
        return as_lists(texts.drop_null(), np.asarray(texts.is_valid()))
    try:
        return column.cast(LISTS).combine_chunks()
    except pa.ArrowException as error:
        raise DataError(f"{path}: the column {name!r} must hold texts or lists of them: {error}") from None
