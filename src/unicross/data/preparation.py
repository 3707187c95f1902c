"""How a tower wants its pictures and texts: plain data, kept in a checkpoint, the same in training and after.

A pretrained pair brings its own rules, which are followed to the pixel and the token. S: side of a square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


@dataclass(frozen=True, slots=True)
class ExactResize:
    """What a pretrained pair's own processor does to a picture, pixel by pixel.

    The whole picture is resized, then the centre of `side` pixels is cut out of it, on black where the
    picture is smaller.
    """

    side: int
    """Of the square, in pixels."""
    first: int
    """The size before the centre is cut out, in pixels: of the shorter edge, or of both."""
    keeps_proportions: bool
    filter: Filter = "bicubic"
    centre: Literal["floor", "round"] = "floor"
    """Where an odd margin goes: as transformers cuts (`floor`), or as torchvision does (`round`)."""

    def __str__(self) -> str:
        edge = "the shorter edge" if self.keeps_proportions else "both edges"
        cut = (
            ""
            if self.first == self.side and not self.keeps_proportions
            else f", of that the middle {self.side}"
        )
        return f"{edge} resized to {self.first} px ({self.filter}){cut}"

    def square(self, image: Image.Image, side: int) -> NDArray[np.uint8]:
        """An RGB picture as uint8 [S, S, 3]. For another side than its own, the same in proportion."""
        first = round(self.first * side / self.side)
        width, height = image.size
        size = (first, first)
        if self.keeps_proportions:
            short = min(width, height)
            size = (
                first if width <= height else int(first * width / short),
                first if height <= width else int(first * height / short),
            )
        image = image.resize(size, Image.Resampling[self.filter.upper()])
        if image.size != (side, side):
            left, top = (self._margin(edge - side) for edge in image.size)
            image = image.crop((left, top, left + side, top + side))
        return np.asarray(image)

    def _margin(self, spare: int) -> int:
        return spare // 2 if self.centre == "floor" or spare < 0 else round(spare / 2)


@dataclass(frozen=True, slots=True)
class PatchCanvas:
    """What SigLIP 2's NaFlex does to a picture: resized in its proportions to whole patches, `most` at most.

    They lie row by row on a square of tiles, so that pictures of all shapes have one size. The tile after the
    last holds the shape.
    """

    patch: int
    """Side in pixels."""
    most: int
    """Patches of a picture."""
    filter: Filter = "bilinear"

    def __str__(self) -> str:
        size = f"at most {self.most} patches of {self.patch} px ({self.filter})"
        return f"resized in their proportions to {size}"

    @property
    def tiles(self) -> int:
        """Of an edge of the square, so many that one is spare."""
        return math.isqrt(self.most) + 1

    @property
    def side(self) -> int:
        """Of the square, in pixels."""
        return self.tiles * self.patch

    def square(self, image: Image.Image, side: int) -> NDArray[np.uint8]:
        """An RGB picture as uint8 [S, S, 3]. Raises ValueError for another side than its own."""
        from transformers.models.siglip2.image_processing_pil_siglip2 import (
            get_image_size_for_max_num_patches,
        )

        if side != self.side:
            raise ValueError(f"a canvas of {self.side} px shows no pictures of {side} px")
        patch = self.patch
        height, width = get_image_size_for_max_num_patches(image.height, image.width, patch, self.most)
        shape = rows, columns = height // patch, width // patch
        image = image.resize((width, height), Image.Resampling[self.filter.upper()])
        tiles = np.zeros((self.tiles**2, patch, patch, 3), np.uint8)
        cut = np.asarray(image).reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
        tiles[: rows * columns] = cut.reshape(-1, patch, patch, 3)
        tiles[self.most].reshape(-1)[:4] = np.array(shape, "<u2").view(np.uint8)
        square = tiles.reshape(self.tiles, self.tiles, patch, patch, 3).swapaxes(1, 2)
        return square.reshape(side, side, 3)

    @staticmethod
    def shapes(tiles: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Rows and columns [B, 2] of the patches on squares, by their spare tiles [B, P, P, 3]."""
        spare = tiles.reshape(len(tiles), -1)
        return np.ascontiguousarray(spare[:, :4]).view("<u2").astype(np.int64)

    @property
    def spare_tile(self) -> tuple[slice, slice]:
        """Where on a square the tile with the shape lies."""
        row, column = (self.patch * place for place in divmod(self.most, self.tiles))
        return slice(row, row + self.patch), slice(column, column + self.patch)


Resize = Literal["squash", "crop"] | ExactResize | PatchCanvas
"""How a picture becomes a square: all of it (`squash`) or its centre in proportion (`crop`), quickly; or as a
pretrained pair has it, exactly."""


@dataclass(frozen=True, slots=True)
class PictureRules:
    """What an image tower sees of a picture."""

    side: int
    """Of the square, in pixels."""
    resize: Resize
    mean: tuple[float, ...]
    """Of the channels, in [0, 1], taken away from the values; `std` divides them then."""
    std: tuple[float, ...]

    def __str__(self) -> str:
        how = {"squash": "squashed to a square", "crop": "their middle square"}
        resize = how[self.resize] if isinstance(self.resize, str) else str(self.resize)
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.side} px, {resize}, mean {mean}, deviation {std}"


@dataclass(frozen=True, slots=True)
class TextRules:
    """What a text tower sees of a text, besides its tokens."""

    prefix: str = ""
    """Put before every text."""
    pad_to: int | None = None
    """Every text is padded to so many tokens and the tower sees the padding, as SigLIP's do; None: texts are
    padded to the longest of their batch and the padding is hidden."""
    pad_left: bool = False
    """With `pad_to`: on which side."""

    def __str__(self) -> str:
        padded = f"all padded to {self.pad_to} tokens" if self.pad_to else "padding hidden"
        return padded + (f", each after {self.prefix!r}" if self.prefix else "")
