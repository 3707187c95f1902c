"""From rows to checked items, the same for every format: grouping by id, splits, and what is wrong.

Everything works on whole columns, so that a million rows take seconds.
Letters: R rows of the source, K rows of the wanted splits grouped by item, N items, C captions.
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
from numpy.typing import NDArray

from unicross.data.images import check_header
from unicross.data.items import Files, Items
from unicross.data.rows import Problem, Rows

CHECK_CHUNK = 64
"""Images whose headers one task of a thread checks: one task an image costs more than the check."""

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def assemble(rows: Rows, wanted: set[str] | None) -> tuple[Items, list[Problem]]:
    """Group the rows of the wanted splits (None: all rows) into items and check them."""
    problems: list[Problem] = []
    number = number_ids(rows.ids)  # [R]
    kept = ~_overlapping(rows, number, wanted, problems)[number]
    if wanted is not None:
        kept &= np.isin(rows.split, [i for i, name in enumerate(rows.splits) if name in wanted])
    order = np.flatnonzero(kept)
    order = order[np.argsort(number[order], kind="stable")]  # [K]
    starts = np.diff(number[order], prepend=-1) != 0
    item, heads = np.cumsum(starts) - 1, order[starts]  # the item of each row [K]; its first row [N]
    picture, other = _pictures(rows, order, item, heads, problems)
    texts, owner = _captions(rows, order, item, other, problems)
    counts = np.bincount(owner, minlength=len(heads))
    bad = _bad_images(rows, picture, heads, problems)
    alone = np.asarray(pc.is_null(rows.captions.take(pa.array(heads))))
    nothing = alone & (picture < 0) & (counts == 0)
    problems += [
        Problem("bad line", rows.where(int(row)), "neither an image nor a caption") for row in heads[nothing]
    ]
    good = ~bad & ~nothing & ((counts > 0) | alone)
    ids = rows.ids.take(pa.array(heads[good]))
    return Items(
        ids, texts.filter(pa.array(good[owner])), counts[good], picture[good], rows.pictures
    ), problems


def number_ids(ids: Any) -> Ints:
    """A number for each id [R], equal for equal ids, in the order in which they are first seen."""
    return np.asarray(ids.dictionary_encode().indices, dtype=np.int64)


def _overlapping(rows: Rows, number: Ints, wanted: set[str] | None, problems: list[Problem]) -> Mask:
    """Ids, by number, that are in more than one split, one of them wanted; each is a problem."""
    ids, splits = int(number.max(initial=-1)) + 1, len(rows.splits)
    if splits < 2:
        return np.zeros(ids, dtype=bool)
    inside = np.flatnonzero(rows.split >= 0)
    both, first = np.unique(number[inside] * splits + rows.split[inside], return_index=True)
    of_id, of_split = np.divmod(both, splits)
    asked = np.array([wanted is None or name in wanted for name in rows.splits])
    found = np.bincount(of_id, minlength=ids) > 1
    found &= np.bincount(of_id, asked[of_split], minlength=ids) > 0
    for one in np.flatnonzero(found):
        mine = np.flatnonzero(of_id == one)
        row = int(inside[first[mine]].min())
        names = " and ".join(sorted(rows.splits[split] for split in of_split[mine]))
        problems.append(Problem("split overlap", rows.where(row), f"{rows.ids[row].as_py()} is in {names}"))
    return found


def _pictures(rows: Rows, order: Ints, item: Ints, heads: Ints, problems: list[Problem]) -> tuple[Ints, Mask]:
    """The picture of each item [N], the first of its rows; which rows [K] have another one: a problem."""
    mine = rows.picture[order]  # [K]
    having = np.flatnonzero(mine >= 0)
    owners, first = np.unique(item[having], return_index=True)
    picture = np.full(len(heads), -1, dtype=np.int64)
    picture[owners] = mine[having[first]]
    other = (mine >= 0) & (mine != picture[item])
    for k in np.flatnonzero(other):
        row, head = int(order[k]), int(heads[item[k]])
        here, there = (rows.pictures[int(p)].name for p in (mine[k], picture[item[k]]))
        what = f"{rows.ids[row].as_py()} is {here} here and {there} in {rows.where(head)}"
        problems.append(Problem("duplicate id", rows.where(row), what))
    return picture, other


def _captions(rows: Rows, order: Ints, item: Ints, other: Mask, problems: list[Problem]) -> tuple[Any, Ints]:
    """The captions [C] item by item, trimmed, and the item of each [C]; empty ones are problems."""
    lists = rows.captions.take(pa.array(order))
    texts = pc.utf8_trim_whitespace(pc.fill_null(pc.list_flatten(lists), ""))
    row = np.asarray(pc.list_parent_indices(lists), dtype=np.int64)  # of K
    size = np.asarray(pc.binary_length(texts))
    none_in_list = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(lists), 0), False))
    for k in [*row[(size == 0) & ~other[row]], *np.flatnonzero(none_in_list & ~other)]:
        place = int(order[k])
        problems.append(Problem("empty caption", rows.where(place), f"of {rows.ids[place].as_py()}"))
    good = (size > 0) & ~other[row]
    return texts.filter(pa.array(good)), item[row[good]]


def _bad_images(rows: Rows, picture: Ints, heads: Ints, problems: list[Problem]) -> Mask:
    """Which items [N] have an image file whose header cannot be read; pixels are looked at when decoding."""
    bad = np.zeros(len(picture), dtype=bool)
    files = rows.pictures
    if not isinstance(files, Files):
        return bad
    having = np.flatnonzero(picture >= 0)

    def check(chunk: Sequence[int]) -> list[tuple[int, Path, str]]:
        paths = ((int(i), files[int(picture[i])].path) for i in chunk)
        return [(i, path, why) for i, path in paths if (why := check_header(path))]

    chunks = [having[start : start + CHECK_CHUNK] for start in range(0, len(having), CHECK_CHUNK)]
    with ThreadPoolExecutor(8) as pool:  # threads wait for the disk together; the parsing itself is short
        found = [one for some in pool.map(check, chunks) for one in some]
    for i, path, why in found:
        bad[i] = True
        kind: Literal["missing image", "unreadable image"] = (
            "unreadable image" if os.path.isfile(path) else "missing image"
        )
        problems.append(Problem(kind, rows.where(int(heads[i])), f"{path}: {why}"))
    return bad
