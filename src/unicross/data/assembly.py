"""From records to checked items, the same for every format: grouping by id, splits, and what is wrong.

Everything works on whole columns, so that a million records take seconds.
Letters: R records of the source, K records of the asked splits grouped by item, N items, C captions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unicross.batches import Indices
from unicross.data.images import check_header
from unicross.data.items import Files, Items, Mask
from unicross.data.records import Problem, Records, number_ids

CHECK_CHUNK = 64
"""Images whose headers one task of a thread checks: one task an image costs more than the check."""

CHECK_THREADS = 8
"""They wait for the disk together; the parsing itself is short."""


def assemble(records: Records, asked: set[str] | None) -> tuple[Items, list[Problem]]:
    """Group the records of the asked splits (None: all records) into items and check them."""
    problems: list[Problem] = []
    number = number_ids(records.ids)  # [R]
    used = ~_overlapping(records, number, asked, problems)[number]
    if asked is not None:
        used &= np.isin(records.split, [i for i, name in enumerate(records.splits) if name in asked])
    order = np.flatnonzero(used)
    order = order[np.argsort(number[order], kind="stable")]  # [K]: item by item, each in the source's order
    starts = np.diff(number[order], prepend=-1) != 0
    item, heads = np.cumsum(starts) - 1, order[starts]  # the item of each record [K]; its first record [N]
    picture, has_other = _pictures(records, order, item, heads, problems)
    texts, owner = _captions(records, order, item, has_other, problems)
    counts = np.bincount(owner, minlength=len(heads))
    bad = _bad_images(records, picture, heads, problems)
    image_only = np.asarray(pc.is_null(records.captions.take(pa.array(heads))))
    empty = image_only & (picture < 0) & (counts == 0)
    problems += [
        Problem("bad line", records.where(int(row)), "neither an image nor a caption") for row in heads[empty]
    ]
    # An item whose captions are all bad is left out; one that never had any is an image alone.
    good = ~bad & ~empty & ((counts > 0) | image_only)
    ids, texts = records.ids.take(pa.array(heads[good])), texts.filter(pa.array(good[owner]))
    return Items(ids, texts, counts[good], picture[good], records.pictures), problems


def _overlapping(records: Records, number: Indices, asked: set[str] | None, problems: list[Problem]) -> Mask:
    """Ids, by number, that are in more than one split, one of them asked for; each is a problem."""
    ids, splits = int(number.max(initial=-1)) + 1, len(records.splits)
    if splits < 2:
        return np.zeros(ids, dtype=bool)
    with_split = np.flatnonzero(records.split >= 0)
    id_and_split, first = np.unique(
        number[with_split] * splits + records.split[with_split], return_index=True
    )
    of_id, of_split = np.divmod(id_and_split, splits)
    is_asked = np.array([asked is None or name in asked for name in records.splits])
    overlapping = np.bincount(of_id, minlength=ids) > 1
    overlapping &= np.bincount(of_id, is_asked[of_split], minlength=ids) > 0
    for image_id in np.flatnonzero(overlapping):
        of_this = np.flatnonzero(of_id == image_id)
        row = int(with_split[first[of_this]].min())
        names = " and ".join(sorted(records.splits[split] for split in of_split[of_this]))
        what = f"{records.ids[row].as_py()} is in {names}"
        problems.append(Problem("split overlap", records.where(row), what))
    return overlapping


def _pictures(
    records: Records, order: Indices, item: Indices, heads: Indices, problems: list[Problem]
) -> tuple[Indices, Mask]:
    """The picture of each item [N], the first of its records; which records [K] have another: a problem."""
    of_record = records.picture[order]  # [K]
    with_picture = np.flatnonzero(of_record >= 0)
    owners, first = np.unique(item[with_picture], return_index=True)
    picture = np.full(len(heads), -1, dtype=np.int64)
    picture[owners] = of_record[with_picture[first]]
    has_other = (of_record >= 0) & (of_record != picture[item])
    for k in np.flatnonzero(has_other):
        row, head = int(order[k]), int(heads[item[k]])
        this, first_one = (records.pictures[int(p)].name for p in (of_record[k], picture[item[k]]))
        what = f"{records.ids[row].as_py()} is {this} here and {first_one} in {records.where(head)}"
        problems.append(Problem("duplicate id", records.where(row), what))
    return picture, has_other


def _captions(
    records: Records, order: Indices, item: Indices, has_other: Mask, problems: list[Problem]
) -> tuple[Any, Indices]:
    """The captions [C] item by item, trimmed, and the item of each [C]; empty ones are problems.

    Captions of records with another picture (`has_other`) are left out: they may not be of this one.
    """
    lists = records.captions.take(pa.array(order))
    texts = pc.utf8_trim_whitespace(pc.fill_null(pc.list_flatten(lists), ""))
    record = np.asarray(pc.list_parent_indices(lists), dtype=np.int64)  # of K
    size = np.asarray(pc.binary_length(texts))
    none_in_list = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(lists), 0), False))
    for k in [*record[(size == 0) & ~has_other[record]], *np.flatnonzero(none_in_list & ~has_other)]:
        row = int(order[k])
        problems.append(Problem("empty caption", records.where(row), f"of {records.ids[row].as_py()}"))
    good = (size > 0) & ~has_other[record]
    return texts.filter(pa.array(good)), item[record[good]]


def _bad_images(records: Records, picture: Indices, heads: Indices, problems: list[Problem]) -> Mask:
    """Which items [N] have an image file whose header cannot be read; pixels are looked at when decoding."""
    bad = np.zeros(len(picture), dtype=bool)
    files = records.pictures
    if not isinstance(files, Files):
        return bad
    with_picture = np.flatnonzero(picture >= 0)

    def check(chunk: Sequence[int]) -> list[tuple[int, Path, str]]:
        paths = ((int(i), files[int(picture[i])].path) for i in chunk)
        return [(i, path, why) for i, path in paths if (why := check_header(path))]

    chunks = [with_picture[start : start + CHECK_CHUNK] for start in range(0, len(with_picture), CHECK_CHUNK)]
    with ThreadPoolExecutor(CHECK_THREADS) as pool:
        refused = [refusal for refusals in pool.map(check, chunks) for refusal in refusals]
    for i, path, why in refused:
        bad[i] = True
        kind: Literal["missing image", "unreadable image"] = (
            "unreadable image" if os.path.exists(path) else "missing image"
        )
        problems.append(Problem(kind, records.where(int(heads[i])), f"{path}: {why}"))
    return bad
