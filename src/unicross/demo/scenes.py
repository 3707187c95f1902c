"""The demo set: drawn scenes with captions, made by code, the same for the same seed.

A scene is one or two groups of alike objects on a background. Scenes come in families, a base and edits of
it that differ in one attribute only (colour, shape, count, size, place, background), so that a set holds
true hard negatives: telling them apart takes that one word and that one detail. Their pictures differ
throughout, as every scene has a look of its own (texture, jitter, tint).
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from unicross.demo.drawing import BACKGROUNDS, COLOURS, OUTLINES, Points, draw_background, draw_objects
from unicross.errors import DataError
from unicross.files import folder_beside
from unicross.progress import track

T = TypeVar("T")

COUNTS = (1, 2, 3, 4)
RADII = {"small": 0.066, "large": 0.108}
"""Radius of an object as a share of the picture's side."""
PLACES = {
    "left": (0.27, 0.5),
    "right": (0.73, 0.5),
    "top": (0.5, 0.27),
    "bottom": (0.5, 0.73),
    "middle": (0.5, 0.5),
}
"""Centre (x, y) of a single group."""
RELATIONS = {"left of": ((0.26, 0.5), (0.74, 0.5)), "above": ((0.5, 0.26), (0.5, 0.74))}
"""Centres of the first and the second of two groups."""
MADE_OF = ".demo.json"
"""Says what a set was made of; hidden, as it is no data."""
FAMILY = 6
"""Scenes in a family: a base and its edits."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some alike objects."""

    count: int
    size: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two groups on a background."""

    groups: tuple[Group, ...]
    place: str
    """Of one group: a key of PLACES; of two: a key of RELATIONS, from the first to the second."""
    background: str
    look: int
    """Seed of everything that captions do not tell: texture, jitter, tint."""

    @property
    def content(self) -> tuple[object, ...]:
        """What captions tell; no two scenes of a set share it."""
        return self.groups, self.place, self.background


def make_scenes(n: int, seed: int) -> list[Scene]:
    """`n` scenes of different content, family after family."""
    rng = np.random.default_rng(seed)
    scenes: dict[tuple[object, ...], Scene] = {}
    while len(scenes) < n:
        base = _random_scene(rng)
        edited = [_edit(base, attribute, rng) for attribute in rng.permutation(ATTRIBUTES)]
        for scene in [base, *edited][:FAMILY]:
            if len({(group.colour, group.shape) for group in scene.groups}) == len(scene.groups):
                scenes.setdefault(scene.content, scene)
    return list(scenes.values())[:n]


def draw(scene: Scene, side: int) -> Image.Image:
    """The picture of a scene, RGB, `side` pixels wide and high."""
    rng = np.random.default_rng(scene.look)
    image = draw_background(scene.background, side, rng)
    centres = [PLACES[scene.place]] if len(scene.groups) == 1 else RELATIONS[scene.place]
    for group, centre in zip(scene.groups, centres, strict=True):
        radius = RADII[group.size] * rng.uniform(0.93, 1.07)
        points = np.array(centre) + _arrangement(group.count, rng) * radius + rng.uniform(-0.015, 0.015, 2)
        draw_objects(image, group.shape, group.colour, points, radius, rng)
    return image


def write_demo_set(root: Path, n_train: int, n_val: int, seed: int, side: int = 96) -> None:
    """Write a demo set: `captions.csv` (image, caption, split) and `images/`, to be read by `load_items`.

    It is written beside and renamed; a set of the same numbers that is there already is kept as it is.
    Raises DataError where `root` is anything else.
    """
    made_of = {"n_train": n_train, "n_val": n_val, "seed": seed, "side": side}
    if root.exists():
        if _made_of(root) == made_of:
            return
        raise DataError(f"{root}: exists already and is not this demo set: remove it or give another folder")
    for stale in root.parent.glob(f".{root.name}.*.partial"):  # of runs that were killed
        shutil.rmtree(stale, ignore_errors=True)
    scenes = make_scenes(n_train + n_val, seed)
    rng = np.random.default_rng([seed, 1])
    with folder_beside(root) as partial:
        (partial / "images").mkdir()
        with (partial / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "caption", "split"])
            for index in track("drawing", rng.permutation(len(scenes)), len(scenes)):
                name = f"{index:06d}.jpg"
                draw(scenes[index], side).save(partial / "images" / name, quality=92, subsampling=0)
                split = "train" if index < n_train else "val"
                writer.writerows([name, caption, split] for caption in captions(scenes[index], rng))
        (partial / MADE_OF).write_text(json.dumps(made_of) + "\n", encoding="utf-8")


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five differently worded captions. The last leaves the background out; the others tell all."""

    def pick(words: Sequence[str]) -> str:
        return _any(words, rng)

    on = [pick(BACKGROUND_WORDS[scene.background]) for _ in range(4)]
    first = [_phrase(scene.groups[0], style, rng) for style in (0, 1, 0, 1, 0)]
    if len(scene.groups) == 1:
        at = [pick(PLACE_WORDS[scene.place]) for _ in range(5)]
        is_are = "is" if scene.groups[0].count == 1 else "are"
        texts = [
            f"{first[0]} {at[0]} on {on[0]}",
            f"there {is_are} {first[1]} {at[1]}, with {on[1]} behind",
            f"on {on[2]}, {first[2]} {at[2]}",
            f"a picture of {first[3]}, {at[3]} on {on[3]}",
            f"{at[4]} {is_are} {first[4]}",
        ]
    else:
        second = [_phrase(scene.groups[1], style, rng) for style in (0, 0, 1, 1, 0)]
        forward, backward = RELATION_WORDS[scene.place]
        texts = [
            f"{first[0]} {pick(forward)} {second[0]} on {on[0]}",
            f"{second[1]} {pick(backward)} {first[1]}, with {on[1]} behind",
            f"on {on[2]}, {first[2]} {pick(forward)} {second[2]}",
            f"a picture of {second[3]} {pick(backward)} {first[3]} on {on[3]}",
            f"{first[4]} {pick(forward)} {second[4]}",
        ]
    return [re.sub(r"\ba (?=orange)", "an ", text) for text in texts]


SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
COUNT_WORDS = {1: ("a", "one"), 2: ("two", "a pair of"), 3: ("three",), 4: ("four",)}
SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "diamond": ("diamond", "rhombus"),
}
BACKGROUND_WORDS = {
    "grass": ("grass", "a meadow"),
    "sand": ("sand", "a beach"),
    "water": ("water", "the sea"),
    "snow": ("snow", "snowy ground"),
    "brick": ("a brick wall", "bricks"),
    "wood": ("wooden boards", "a wooden floor"),
}
PLACE_WORDS = {
    "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"),
    "top": ("at the top", "in the upper part"),
    "bottom": ("at the bottom", "in the lower part"),
    "middle": ("in the middle", "in the centre"),
}
RELATION_WORDS = {
    "left of": (("left of", "to the left of"), ("right of", "to the right of")),
    "above": (("above", "over"), ("below", "under")),
}
"""From the first group to the second, and back."""


def _phrase(group: Group, style: int, rng: np.random.Generator) -> str:
    """All of a group in words: `two large red stars`, or (style 1) `two large stars in red`."""
    count = _any(COUNT_WORDS[group.count], rng)
    size = _any(SIZE_WORDS[group.size], rng)
    shape = _any(SHAPE_WORDS.get(group.shape, (group.shape,)), rng)
    if group.count > 1:
        shape += "es" if shape.endswith(("s", "x")) else "s"
    if style == 1:
        return f"{count} {size} {shape} in {group.colour}"
    return f"{count} {size} {group.colour} {shape}"


def _random_scene(rng: np.random.Generator) -> Scene:
    def random_group() -> Group:
        return Group(_any(COUNTS, rng), _any(RADII, rng), _any(COLOURS, rng), _any(OUTLINES, rng))

    groups = (random_group(),) if rng.random() < 0.5 else (random_group(), random_group())
    place = _any(tuple(PLACES if len(groups) == 1 else RELATIONS), rng)
    return Scene(groups, place, _any(BACKGROUNDS, rng), _look(rng))


ATTRIBUTES = ("colour", "shape", "count", "size", "place", "background")


def _edit(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """The scene with one attribute changed (of one of its groups) and a look of its own."""
    which = int(rng.integers(len(scene.groups)))
    group = scene.groups[which]
    scene = replace(scene, look=_look(rng))
    match attribute:
        case "background":
            return replace(scene, background=_any(BACKGROUNDS, rng, but=scene.background))
        case "place" if len(scene.groups) == 2 and rng.random() < 0.5:
            return replace(scene, groups=scene.groups[::-1])
        case "place":
            places = tuple(PLACES if len(scene.groups) == 1 else RELATIONS)
            return replace(scene, place=_any(places, rng, but=scene.place))
        case "count":
            group = replace(group, count=_any(COUNTS, rng, but=group.count))
        case "size":
            group = replace(group, size=_any(RADII, rng, but=group.size))
        case "colour":
            group = replace(group, colour=_any(COLOURS, rng, but=group.colour))
        case _:
            group = replace(group, shape=_any(OUTLINES, rng, but=group.shape))
    return replace(scene, groups=(*scene.groups[:which], group, *scene.groups[which + 1 :]))


def _any(choices: Iterable[T], rng: np.random.Generator, but: T | None = None) -> T:
    others = [choice for choice in choices if choice != but]
    return others[int(rng.integers(len(others)))]


def _look(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


def _arrangement(count: int, rng: np.random.Generator) -> Points:
    """Centres of `count` objects about (0, 0) in radii, [count, 2]: never touching, a little irregular."""
    match count:
        case 1:
            points = np.zeros((1, 2))
        case 2:
            points = (
                np.array([(-1.2, 0), (1.2, 0)]) if rng.random() < 0.5 else np.array([(0, -1.2), (0, 1.2)])
            )
        case 3:
            points = np.array([(0, -1.1), (-1.2, 1.1), (1.2, 1.1)]) * rng.choice([-1, 1])
        case _:
            points = np.array([(-1.2, -1.2), (1.2, -1.2), (-1.2, 1.2), (1.2, 1.2)])
    return points + rng.uniform(-0.1, 0.1, points.shape)


def _made_of(root: Path) -> object:
    try:
        return json.loads((root / MADE_OF).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
