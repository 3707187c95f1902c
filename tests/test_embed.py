from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fake_model import COLOURS, FakeModel, gallery, paint
from unicross.axes import axes_from_text, axes_to_text
from unicross.embed import embed_images, find_pictures, shortened
from unicross.errors import DataError


def test_finding_finds_nested_pictures_sorted_with_their_albums(tmp_path: Path) -> None:
    gallery(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    paint(tmp_path / ".hidden" / "secret.png", "red")
    paint(tmp_path / "UPPER.PNG", "red")
    files, failures = find_pictures(tmp_path)
    found = [(file.path.relative_to(tmp_path.resolve()).as_posix(), file.album) for file in files]
    assert found == [
        ("UPPER.PNG", tmp_path.name),
        ("a/blue.png", "a"),
        ("a/deep/yellow.png", "a/deep"),
        ("a/green.jpg", "a"),
        ("b/black.bmp", "b"),
        ("b/white.png", "b"),
        ("red.png", tmp_path.name),
    ]
    assert failures == []
    assert files[0].size == (tmp_path / "UPPER.PNG").stat().st_size


def test_finding_survives_link_loops_and_reports_dead_links(tmp_path: Path) -> None:
    gallery(tmp_path)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    files, failures = find_pictures(tmp_path)
    assert len(files) == 6
    assert sorted(Path(failure.path).name for failure in failures) == ["dead.png", "loop.png"]


def test_finding_reports_names_that_are_not_utf8(tmp_path: Path) -> None:
    bad = os.fsencode(tmp_path) + b"/bad\xff.png"
    try:
        Path(os.fsdecode(bad)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    files, failures = find_pictures(tmp_path)
    assert files == []
    assert "not valid UTF-8" in failures[0].reason
    failures[0].path.encode()  # can be printed and written as JSON


def test_finding_refuses_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        find_pictures(tmp_path / "missing")


def test_embed_images_keeps_order_and_gives_the_errors_of_bad_files(tmp_path: Path) -> None:
    good = [paint(tmp_path / f"{name}.png", name) for name in COLOURS]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture at all")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good[0].read_bytes()[:60])
    paths = [*good[:3], broken, *good[3:], cut]
    model = FakeModel()
    results = dict(zip(paths, embed_images(model, paths, batch_size=3), strict=True))
    errors = {path: str(result) for path, result in results.items() if isinstance(result, DataError)}
    assert errors.keys() == {broken, cut}
    assert errors[broken].startswith(f"{broken}: not an image")
    expected = model.encode_texts(list(COLOURS))
    for path, vector in zip(good, expected, strict=True):
        np.testing.assert_allclose(results[path], vector, atol=1e-6)


def test_a_batch_without_a_good_picture_asks_the_model_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    model = FakeModel()
    (error,) = embed_images(model, [tmp_path / "broken.jpg"])
    assert isinstance(error, DataError)
    assert model.pictures == 0


def test_embed_images_sees_pictures_upright(tmp_path: Path) -> None:
    """A picture stored on its side with an EXIF orientation is embedded as people see it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = COLOURS["red"]
    pixels[16:] = COLOURS["blue"]
    Image.fromarray(pixels).save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "turned.png", exif=exif)
    upright, turned = embed_images(FakeModel(), [tmp_path / "upright.png", tmp_path / "turned.png"])
    np.testing.assert_allclose(upright, turned, atol=1e-6)


class Ahead(FakeModel):
    """Can begin with pictures, and notes what it is asked for."""

    images_at_once = 2

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def start_pixels(self, pixels: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        number = sum(order.startswith("begin") for order in self.asked)
        self.asked.append(f"begin {number}")
        vectors = self.encode_pixels(pixels)

        def wait() -> NDArray[np.float32]:
            self.asked.append(f"fetch {number}")
            return vectors

        return wait


FIVE = axes_to_text(np.linalg.qr(np.random.default_rng(0).standard_normal((16, 5)))[0])


@pytest.mark.parametrize(("dim", "axes"), [(16, ""), (5, FIVE)])
def test_a_model_has_its_next_pictures_before_it_is_asked_for_vectors(
    tmp_path: Path, dim: int, axes: str
) -> None:
    """A GPU would stand still between batches otherwise."""
    paths = [paint(tmp_path / f"{name}.png", name) for name in list(COLOURS)[:5]]
    model = Ahead()
    vectors = np.stack(list(embed_images(shortened(model, dim, axes), paths)))
    assert model.asked == ["begin 0", "begin 1", "fetch 0", "begin 2", "fetch 1", "fetch 2"]
    plain = np.stack(list(embed_images(shortened(FakeModel(), dim, axes), paths)))
    np.testing.assert_array_equal(vectors, plain)


def test_embed_images_of_nothing() -> None:
    assert list(embed_images(FakeModel(), [])) == []


def test_vectors_can_be_cut() -> None:
    model = FakeModel()
    short = shortened(model, 5, FIVE)
    texts = ["red", "a blue sea"]
    expected = model.encode_texts(texts) @ axes_from_text(FIVE, 5)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode_texts(texts), expected, atol=1e-6)
    assert short.dim == 5
    assert shortened(model, 16, "") is model
    others = axes_to_text(axes_from_text(FIVE, 5)[::-1])
    prints = {model.fingerprint(), short.fingerprint(), shortened(model, 5, others).fingerprint()}
    assert len(prints) == 3
