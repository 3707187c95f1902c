"""From records to checked items, the same for every format: grouping by id, splits, and what is wrong.

Everything works on whole columns, so that a million records take seconds.
Letters: R records of the source, K records of the asked splits grouped by item, N items, P images of items,
C captions.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unicross.batches import Indices
from unicross.data.decoding import check_header
from unicross.data.image_source import Files
from unicross.data.items import Items, Mask, text_numbers
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
    images, of_image, has_other = _images(records, order, item, heads, problems)
    texts, owner, kind = _captions(records, order, item, has_other, problems)
    several = np.bincount(of_image, minlength=len(heads)) > 1
    if several.any():
        first = _first_said(texts, owner, kind, several)
        texts, owner = texts.filter(pa.array(first)), owner[first]
        kind = None if kind is None else kind[first]
    counts = np.bincount(owner, minlength=len(heads))
    bad = _bad_images(records, images, of_image, heads, problems)
    sound = np.bincount(of_image[~bad], minlength=len(heads))
    image_only = np.asarray(pc.is_null(records.captions.take(pa.array(heads))))
    lost = (sound == 0) & (np.bincount(of_image, minlength=len(heads)) > 0)
    empty = image_only & (sound == 0) & ~lost & (counts == 0)
    problems += [
        Problem("bad line", records.where(int(row)), "neither an image nor a caption") for row in heads[empty]
    ]
    # An item whose captions are all bad is left out; one that never had any is an image alone.
    good = ~lost & ~empty & ((counts > 0) | image_only)
    of_good = good[owner]
    items = Items(
        records.ids.take(pa.array(heads[good])),
        texts.filter(pa.array(of_good)),
        counts[good],
        images[~bad & good[of_image]],
        sound[good],
        records.pictures,
        records.kinds,
        None if kind is None else kind[of_good],
    )
    return items, problems


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
    for id in np.flatnonzero(overlapping):
        of_this = np.flatnonzero(of_id == id)
        row = int(with_split[first[of_this]].min())
        names = " and ".join(sorted(records.splits[split] for split in of_split[of_this]))
        what = f"{records.ids[row].as_py()} is in {names}"
        problems.append(Problem("split overlap", records.where(row), what))
    return overlapping


def _images(
    records: Records, order: Indices, item: Indices, heads: Indices, problems: list[Problem]
) -> tuple[Indices, Indices, Mask]:
    """The images [P] item by item, each once, in the order of the records, and the item of each [P].

    Where an item may have one image only, that is the first of its records, and the third value says which
    records [K] have another: a problem.
    """
    of_record = records.picture[order]  # [K]
    with_image = np.flatnonzero(of_record >= 0)
    pairs = np.stack([item[with_image], of_record[with_image]], axis=1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    chosen = with_image[np.sort(first)]
    has_other = np.zeros(len(order), dtype=bool)
    if not records.several:
        chosen = chosen[np.unique(item[chosen], return_index=True)[1]]
        only = np.full(len(heads), -1, dtype=np.int64)
        only[item[chosen]] = of_record[chosen]
        has_other = (of_record >= 0) & (of_record != only[item])
        for k in np.flatnonzero(has_other):
            row, head = int(order[k]), int(heads[item[k]])
            this, first_one = (records.pictures[int(p)].name for p in (of_record[k], only[item[k]]))
            what = f"{records.ids[row].as_py()} is {this} here and {first_one} in {records.where(head)}"
            problems.append(Problem("duplicate id", records.where(row), what))
    return of_record[chosen], item[chosen], has_other


def _captions(
    records: Records, order: Indices, item: Indices, has_other: Mask, problems: list[Problem]
) -> tuple[Any, Indices, Indices | None]:
    """The captions [C] item by item, trimmed, the item of each [C], and its kind; empty ones are problems.

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
    kind = None
    if records.kind is not None:
        kind = np.asarray(pc.list_flatten(records.kind.take(pa.array(order))), dtype=np.int64)
    return texts.filter(pa.array(good)), item[record[good]], None if kind is None else kind[good]


def _first_said(texts: Any, item: Indices, kind: Indices | None, several: Mask) -> Mask:
    """Which captions [C] their item does not have already, of the same kind.

    Only among items of `several` images [N], whose rows repeat what they say for each image.
    """
    kinds = np.zeros_like(item) if kind is None else kind
    said = np.stack([item, text_numbers(texts), kinds], axis=1)
    first = ~several[item]
    first[np.unique(said, axis=0, return_index=True)[1]] = True
    return first


def _bad_images(
    records: Records, images: Indices, of_image: Indices, heads: Indices, problems: list[Problem]
) -> Mask:
    """Which images [P] are files whose header cannot be read; pixels are looked at when decoding."""
    bad = np.zeros(len(images), dtype=bool)
    files = records.pictures
    if not isinstance(files, Files):
        return bad

    def check(chunk: range) -> list[tuple[int, Path, str]]:
        paths = ((p, files[int(images[p])].path) for p in chunk)
        return [(p, path, why) for p, path in paths if (why := check_header(path))]

    chunks = [
        range(start, min(start + CHECK_CHUNK, len(images))) for start in range(0, len(images), CHECK_CHUNK)
    ]
    with ThreadPoolExecutor(CHECK_THREADS) as pool:
        refused = [refusal for refusals in pool.map(check, chunks) for refusal in refusals]
    for p, path, why in refused:
        bad[p] = True
        kind: Literal["missing image", "unreadable image"] = (
            "unreadable image" if os.path.exists(path) else "missing image"
        )
        problems.append(Problem(kind, records.where(int(heads[of_image[p]])), f"{path}: {why}"))
    return bad
