"""Decoded pictures, each decoded once: later epochs read no JPEG.

`PixelCache` keeps all pictures as uint8 squares, in memory or in a memory-mapped file that later runs find
again; `LazyPixels` keeps nothing and decodes at each call. Both are asked by the position of an image among
those of all items. B: asked images; P: images of the items; R: rows of the cache; S: side in pixels.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from filelock import FileLock

from unicross.batches import Indices
from unicross.data.image_source import ImageSource
from unicross.data.images import Pixels, load_square
from unicross.data.items import Item, Items, Selection
from unicross.data.preparation import Resize
from unicross.data.records import Problem, problems_error
from unicross.errors import DataError
from unicross.files import folder_beside
from unicross.prefetch import OnProgress

OnError = Literal["raise", "skip"]

LAYOUT = 1
"""Part of the key of a cache on disk: raise it when the same image would give other pixels."""
CHUNK = 256
"""Pictures that are decoded before they are written and progress is told."""


class PixelSource(Protocol):
    """What training asks for pictures."""

    bad: list[Problem]
    """What is wrong with pictures that cannot be decoded (only with on_error="skip")."""
    bad_images: list[int]
    """The images that they are of, in the same order; not to be asked for."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, images: Selection) -> Pixels:
        """These images, uint8 [B, S, S, 3]."""

    def select(self, images: Selection) -> PixelSource:
        """Some of the images, asked by their position among these."""


class PixelCache:
    """All pictures of some items as uint8 squares."""

    def __init__(self, pixels: Pixels, rows: Indices, bad: Mapping[int, Problem]) -> None:
        self.pixels = pixels
        """uint8 [R, S, S, 3], in memory or memory-mapped."""
        self.rows = rows
        """Row of each image [P]; -1 where it is bad."""
        self.bad = list(bad.values())
        self.bad_images = list(bad)

    @classmethod
    def build(
        cls,
        items: Sequence[Item],
        side: int,
        resize: Resize,
        *,
        where: Path | None = None,
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: OnProgress | None = None,
    ) -> PixelCache:
        """Decode the pictures of all items, or find them in the folder `where` from an earlier run.

        With `where` None they are kept in memory. Raises DataError where pictures cannot be decoded, unless
        `on_error` is "skip" (see `bad_images`), and where the disk has no room.
        """
        items = Items.of(items)
        squares = _Squares(items, side, resize, workers, progress)
        if where is None:
            pixels, bad_rows = _to_memory(squares)
        else:
            pixels, bad_rows = _to_disk(squares, where, _key(items, side, resize))
        bad = squares.problems(bad_rows, on_error)
        rows = np.arange(len(items.images))
        rows[list(bad)] = -1
        return cls(pixels, rows, bad)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, images: Selection) -> Pixels:
        rows = self.rows[np.asarray(images, np.int64)]
        assert (rows >= 0).all(), "a bad image was asked for"
        return np.asarray(self.pixels[rows])  # [R, S, S, 3] -> [B, S, S, 3]

    def select(self, images: Selection) -> PixelCache:
        return PixelCache(self.pixels, self.rows[np.asarray(images, np.int64)], {})


class LazyPixels:
    """Decodes at each call, in threads, and keeps nothing."""

    def __init__(
        self,
        items: Sequence[Item],
        side: int,
        resize: Resize,
        *,
        workers: int | None = None,
        bad: Mapping[int, Problem] | None = None,
    ) -> None:
        items = Items.of(items)
        self.pictures, self.rows = items.pictures, items.images
        self.side = side
        self.resize: Resize = resize
        self.bad = list(bad.values()) if bad else []
        self.bad_images = list(bad) if bad else []
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers or os.cpu_count(), thread_name_prefix="decode")

    @classmethod
    def build(
        cls,
        items: Sequence[Item],
        side: int,
        resize: Resize,
        *,
        workers: int | None = None,
        on_error: OnError = "raise",
        progress: OnProgress | None = None,
    ) -> LazyPixels:
        """With on_error="skip" every picture is decoded once now, to know which are bad; else none is."""
        bad: dict[int, Problem] = {}
        if on_error == "skip":
            squares = _Squares(Items.of(items), side, resize, workers, progress)
            for _ in squares.chunks():
                pass
            bad = squares.problems(squares.bad, on_error)
        return cls(items, side, resize, workers=workers, bad=bad)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, images: Selection) -> Pixels:
        """As PixelSource. Raises DataError for a picture that cannot be decoded."""
        rows = self.rows[np.asarray(images, np.int64)]
        squares = list(self._pool.map(self._load, (self.pictures[int(row)] for row in rows)))
        return np.stack(squares) if squares else np.empty((0, self.side, self.side, 3), np.uint8)

    def select(self, images: Selection) -> LazyPixels:
        selected = copy.copy(self)
        selected.rows = self.rows[np.asarray(images, np.int64)]
        selected.bad, selected.bad_images = [], []
        return selected

    def _load(self, image: ImageSource) -> Pixels:
        return load_square(image, self.side, self.resize)


class _Squares:
    """Decodes the pictures of some items in chunks, in threads, and collects what is wrong with them."""

    def __init__(
        self,
        items: Items,
        side: int,
        resize: Resize,
        workers: int | None,
        progress: OnProgress | None,
    ) -> None:
        self.items = items
        self.shape = (len(items.images), side, side, 3)
        self.resize: Resize = resize
        self.workers = workers or os.cpu_count()
        self.progress = progress
        self.bad: dict[int, str] = {}
        """What is wrong with the pictures, by row."""

    def chunks(self) -> Iterator[Pixels]:
        """The pictures in order, uint8 [<= CHUNK, S, S, 3]; black where one is bad."""
        total = len(self.items.images)
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, total, CHUNK):
                stop = min(start + CHUNK, total)
                yield np.stack(list(pool.map(self._load, range(start, stop))))
                if self.progress is not None:
                    self.progress(stop, total)

    def problems(self, bad: Mapping[int, str], on_error: OnError) -> dict[int, Problem]:
        """The bad images as problems, in order. Raises DataError unless to be skipped."""
        problems = {
            row: Problem("unreadable image", self.items.image(row).name, bad[row]) for row in sorted(bad)
        }
        if problems and on_error == "raise":
            raise problems_error("decoding images", list(problems.values()))
        return problems

    def _load(self, row: int) -> Pixels:
        source = self.items.image(row)
        try:
            return load_square(source, self.shape[1], self.resize)
        except DataError as error:
            self.bad[row] = str(error).removeprefix(f"{source.name}: ")
            return np.zeros(self.shape[1:], np.uint8)


def _to_memory(squares: _Squares) -> tuple[Pixels, dict[int, str]]:
    pixels = np.empty(squares.shape, np.uint8)
    start = 0
    for chunk in squares.chunks():
        pixels[start : start + len(chunk)] = chunk
        start += len(chunk)
    return pixels, squares.bad


def _to_disk(squares: _Squares, where: Path, key: str) -> tuple[Pixels, dict[int, str]]:
    """Write the pictures beside and rename, unless they are there; then map them read-only.

    A lock makes several processes wait for the first of them instead of all decoding.
    """
    folder = where / key
    try:
        where.mkdir(parents=True, exist_ok=True)
        with FileLock(where / f"{key}.lock"):
            if not folder.is_dir():
                # We hold the lock, so a partial folder of this key is of a run that was killed.
                for partial in where.glob(f".{key}.*"):
                    shutil.rmtree(partial, ignore_errors=True)
                with folder_beside(folder) as partial:
                    _write(squares, partial)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the picture cache: {error.strerror or error}. "
            "Make room there, or use data.cache=memory or data.cache=none"
        ) from error
    bad = json.loads((folder / "bad.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="r" if squares.shape[0] else None)
    return pixels, {int(row): why for row, why in bad.items()}


def _write(squares: _Squares, folder: Path) -> None:
    with (folder / "pixels.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": squares.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in squares.chunks():
            file.write(chunk.data)
    (folder / "bad.json").write_text(json.dumps(squares.bad), encoding="utf-8")


def _key(items: Items, side: int, resize: Resize) -> str:
    """A digest of everything that the pixels depend on: ids, files, their sizes and times, side, resize."""
    digest = hashlib.sha256(f"{LAYOUT} {side} {resize}".encode())
    for position, item in enumerate(items.item_of_image):
        image = items.image(position)
        try:
            stamp = image.stamp()
        except OSError:
            stamp = "unreadable"
        row = f"\n{items.ids[int(item)].as_py()}\t{image.name}\t{stamp}"
        digest.update(row.encode(errors="surrogateescape"))
    return f"pixels-{digest.hexdigest()[:16]}"
