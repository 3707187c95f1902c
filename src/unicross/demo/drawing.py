"""Drawing for the demo set: textured backgrounds and anti-aliased shapes, from numbers alone.

Shapes are drawn as masks at SCALE times the size and reduced. Coordinates are shares of the side, y down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SCALE = 4

COLOURS = {
    "red": (214, 32, 38),
    "orange": (245, 135, 20),
    "yellow": (250, 222, 40),
    "green": (24, 150, 60),
    "blue": (36, 84, 214),
    "purple": (140, 50, 180),
    "white": (248, 248, 248),
    "black": (24, 24, 28),
}

BACKGROUNDS = {
    "grass": (104, 158, 70),
    "sand": (222, 198, 150),
    "water": (92, 168, 200),
    "snow": (226, 233, 242),
    "brick": (168, 92, 74),
    "wood": (156, 112, 72),
}

Points = NDArray[np.float64]


def _ngon(corners: int, inner: float = 1.0) -> Points:
    """A regular polygon [K, 2] in the unit circle, first corner up; every second at `inner` if below 1."""
    count = corners * (2 if inner < 1 else 1)
    angles = np.arange(count) * 2 * np.pi / count - np.pi / 2
    radii = np.where(np.arange(count) % 2 == 1, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 16.5


_BAR = 0.33
_CROSS = [(-_BAR, -1), (_BAR, -1), (_BAR, -_BAR), (1, -_BAR), (1, _BAR), (_BAR, _BAR)]
OUTLINES: dict[str, Points] = {
    "circle": _ngon(40),
    "square": np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),
    "triangle": np.array([(0, -1), (1, 0.8), (-1, 0.8)]),
    "star": _ngon(5, inner=0.42) * 1.12,
    "heart": _heart(),
    "ring": _ngon(40),
    "cross": np.array([*_CROSS, *[(-x, -y) for x, y in _CROSS]]),
    "diamond": np.array([(0, -1.15), (0.72, 0), (0, 1.15), (-0.72, 0)]),
}
HOLES = {"ring": 0.45}
"""Radius of the hole in a shape, as a share of its own."""


def draw_background(kind: str, size: int, rng: np.random.Generator) -> Image.Image:
    """A texture of one kind, `size` pixels wide and high."""
    y, x = np.mgrid[0:size, 0:size] / size
    base = np.array(BACKGROUNDS[kind], np.float64) + rng.uniform(-8, 8, 3)
    light = 14 * _noise(rng, size, 4) + 8 * _noise(rng, size, 24) + rng.uniform(-16, 16) * (y - 0.5)
    match kind:
        case "grass":
            light += 14 * _noise(rng, size, 80, stretch=8)
        case "sand":
            light += 9 * _noise(rng, size, size // 2) + 5 * np.sin(40 * y + 6 * _noise(rng, size, 5))
        case "water":
            light += 14 * np.sin(2 * np.pi * (rng.uniform(7, 10) * y + 0.6 * _noise(rng, size, 6)))
        case "snow":
            light += 6 * _noise(rng, size, size // 2)
        case "brick":
            light += 16 * _noise(rng, size, 12) - 46 * _mortar(x, y, rng)
        case "wood":
            planks = (x * 5 + rng.uniform()) % 1
            light += 10 * np.sin(30 * x + 8 * _noise(rng, size, 3, stretch=6)) - 50 * (planks < 0.06)
    pixels = base + light[..., None]  # [H, W, 3]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_objects(
    image: Image.Image,
    shape: str,
    colour: str,
    centres: Points,
    radius: float,
    rng: np.random.Generator,
) -> None:
    """Draw alike objects into a square picture, each turned a little.

    `centres` [K, 2] and `radius` are shares of the side.
    """
    fine = image.width * SCALE
    turns = rng.uniform(-0.22, 0.22, len(centres))
    tint = np.array(COLOURS[colour]) + rng.uniform(-12, 12, 3)
    fill = tuple(int(value) for value in tint.clip(0, 255))
    edge = tuple(int(value * 0.45) for value in fill)

    def mask(grow: float, shift: float = 0.0) -> Image.Image:
        layer = Image.new("L", (fine, fine))
        pen = ImageDraw.Draw(layer)
        for centre, turn in zip(centres, turns, strict=True):
            place = (centre + shift) * fine
            rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            outline = OUTLINES[shape] @ rotation.T * radius * fine  # [K, 2] @ [2, 2] -> [K, 2]
            pen.polygon([tuple(p) for p in place + outline * grow], fill=255)
            if hole := HOLES.get(shape):
                pen.polygon([tuple(p) for p in place + outline * hole * (2 - grow)], fill=0)
        return layer.reduce(SCALE)

    shadow = mask(1.05, shift=0.012).filter(ImageFilter.GaussianBlur(image.width * 0.008))
    image.paste((30, 30, 40), mask=shadow.point([value * 2 // 5 for value in range(256)]))
    image.paste(edge, mask=mask(1.0))
    image.paste(fill, mask=mask(0.86))


def _noise(rng: np.random.Generator, size: int, cells: int, stretch: int = 1) -> NDArray[np.float64]:
    """Smooth noise about 0 with `cells` bumps across, `stretch` times fewer down; [size, size]."""
    cells = max(2, min(cells, size))
    grid = rng.normal(0, 1, (max(2, cells // stretch), cells)).astype(np.float32)
    image = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).astype(np.float64)


def _mortar(x: Points, y: Points, rng: np.random.Generator) -> NDArray[np.float64]:
    """1 on the joints of a brick wall, 0 on the bricks."""
    rows = y * 9 + rng.uniform()
    columns = x * 5 + 0.5 * (np.floor(rows) % 2)
    return ((rows % 1 < 0.14) | (columns % 1 < 0.07)).astype(np.float64)
