"""How a tower wants its pictures and texts: plain data, kept in a checkpoint, the same in training and after.

A pretrained pair brings its own rules, which are followed to the pixel and the token. S: side of a square.
"""

from __future__ import annotations

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


Resize = Literal["squash", "crop"] | ExactResize
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
        resize = str(self.resize) if isinstance(self.resize, ExactResize) else how[self.resize]
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
