"""The demo set: deterministic, hard, told by its captions, and read by load_items."""

import csv
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unicross.data.load import load_items
from unicross.demo.scenes import PLACES, Group, Scene, captions, draw, make_scenes, write_demo_set
from unicross.errors import DataError
from unicross.progress import progress_shown_by


def changes(a: Scene, b: Scene) -> int:
    """In how many attributes two scenes differ; swapped groups count as one change of place."""
    if len(a.groups) != len(b.groups):
        return 99
    rest = (a.place != b.place) + (a.background != b.background)
    if len(a.groups) == 2 and a.groups == b.groups[::-1]:
        return 1 + rest
    fields = ("count", "size", "colour", "shape")
    pairs = zip(a.groups, b.groups, strict=True)
    return rest + sum(getattr(x, name) != getattr(y, name) for x, y in pairs for name in fields)


@given(st.integers(1, 300), st.integers(0, 5))
@settings(max_examples=15)
def test_as_many_different_scenes_as_asked_for(n: int, seed: int) -> None:
    scenes = make_scenes(n, seed)
    assert len({scene.content for scene in scenes}) == len(scenes) == n
    assert scenes == make_scenes(n, seed)


def test_seeds_differ() -> None:
    assert make_scenes(20, 0) != make_scenes(20, 1)


def test_most_scenes_have_a_neighbour_that_differs_in_one_attribute() -> None:
    scenes = make_scenes(300, 0)
    close = {i for i, j in itertools.permutations(range(300), 2) if changes(scenes[i], scenes[j]) == 1}
    assert len(close) > 0.95 * len(scenes)


def test_two_groups_can_be_told_apart_by_what_they_are() -> None:
    pairs = [scene.groups for scene in make_scenes(3000, 0) if len(scene.groups) == 2]
    assert all((a.colour, a.shape) != (b.colour, b.shape) for a, b in pairs)


def test_every_attribute_varies() -> None:
    scenes = make_scenes(600, 0)
    groups = [group for scene in scenes for group in scene.groups]
    for values, least in [
        ([group.colour for group in groups], 8),
        ([group.shape for group in groups], 8),
        ([group.count for group in groups], 4),
        ([group.size for group in groups], 2),
        ([scene.background for scene in scenes], 6),
        ([scene.place for scene in scenes], len(PLACES) + 2),
    ]:
        counts = Counter(values)
        assert len(counts) == least
        assert min(counts.values()) > len(values) / least / 4


def plain(caption: str) -> str:
    """A caption with every synonym replaced by one word, to compare meanings."""
    synonyms = {
        "discs": "circles", "disc": "circle", "boxes": "squares", "box": "square",
        "hoops": "rings", "hoop": "ring", "plus signs": "crosses", "plus sign": "cross",
        "rhombuses": "diamonds", "rhombus": "diamond",
        "little": "small", "big": "large", "a pair of": "two", "one": "a", "an": "a",
        "a meadow": "grass", "a beach": "sand", "the sea": "water", "snowy ground": "snow",
        "bricks": "a brick wall", "a wooden floor": "wooden boards",
        "at the left side": "on the left", "at the right side": "on the right",
        "in the upper part": "at the top", "in the lower part": "at the bottom",
        "in the centre": "in the middle", "over": "above", "under": "below",
        "to the left of": "left of", "to the right of": "right of",
    }  # fmt: skip
    words = f" {caption.replace(',', ' ,')} "
    for other, word in synonyms.items():
        words = words.replace(f" {other} ", f" {word} ")
    return words


def test_captions_tell_scenes_apart_whatever_their_words() -> None:
    rng = np.random.default_rng(9)
    texts = [captions(scene, rng) for scene in make_scenes(200, 3)]
    for wording in range(4):
        assert len({plain(five[wording]) for five in texts}) == len(texts)


def test_five_different_captions_that_vary_with_the_draw() -> None:
    rng = np.random.default_rng(0)
    for scene in make_scenes(50, 0):
        texts = captions(scene, rng)
        assert len(set(texts)) == 5
        assert all(text == text.strip() and "  " not in text and " a orange" not in text for text in texts)
        assert all(group.colour in text for text in texts for group in scene.groups)
        assert len({tuple(captions(scene, rng)) for _ in range(10)}) > 1


def test_pictures_show_what_differs() -> None:
    base = Group(1, "large", "red", "square")

    def one(place: str = "left", **changed: object) -> np.ndarray:
        scene = Scene((replace(base, **changed),), place, "snow", look=1)
        return np.asarray(draw(scene, 64)).astype(int)

    def is_red(pixels: np.ndarray) -> np.ndarray:
        return (pixels[..., 0] > 150) & (pixels[..., 1:].max(-1) < 90)

    large = is_red(one())
    assert large[:, :32].sum() > 40
    assert large[:, 32:].sum() == 0
    assert is_red(one(place="right"))[:, :32].sum() == 0
    assert is_red(one(size="small")).sum() < 0.6 * large.sum()
    assert is_red(one(count=3)).sum() > 2.4 * large.sum()
    assert is_red(one(colour="blue")).sum() == 0


def test_pictures_are_the_same_for_the_same_scene() -> None:
    for scene in make_scenes(12, 1):
        image = draw(scene, 48)
        assert (image.size, image.mode) == ((48, 48), "RGB")
        assert image.tobytes() == draw(scene, 48).tobytes()


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_written_set_is_read_back(tmp_path: Path) -> None:
    write_demo_set(tmp_path / "demo", 12, 6, seed=0, side=32)
    train, val = (load_items(tmp_path / "demo", split).items for split in ("train", "val"))
    assert (len(train), len(val)) == (12, 6)
    assert all(len(item.captions) == 5 and item.is_pair for item in [*train, *val])
    with (tmp_path / "demo" / "captions.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 18 * 5


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_demo_set(tmp_path / name, 5, 3, seed=seed, side=32)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_an_existing_set_is_kept_and_anything_else_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    write_demo_set(root, 6, 6, seed=0, side=32)
    before = (root / "captions.csv").stat().st_mtime_ns
    write_demo_set(root, 6, 6, seed=0, side=32)
    assert (root / "captions.csv").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="exists already and is not this demo set"):
        write_demo_set(root, 6, 6, seed=1, side=32)


def test_remains_of_a_killed_run_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".demo.1.partial" / "images").mkdir(parents=True)
    (tmp_path / ".demo.1.partial" / "images" / "999999.jpg").write_bytes(b"junk")
    write_demo_set(tmp_path / "demo", 6, 6, seed=0, side=32)
    assert len(list((tmp_path / "demo" / "images").iterdir())) == 12
    assert not (tmp_path / ".demo.1.partial").exists()


def test_drawing_tells_how_far_it_has_come(tmp_path: Path) -> None:
    told = []
    with progress_shown_by(lambda *progress: told.append(progress)):
        write_demo_set(tmp_path / "demo", 2, 1, seed=0, side=32)
    assert told == [("drawing", done, 3) for done in range(4)]
