"""Decoding: what every kind of image looks like afterwards, and a sentence for every kind of damage."""

import contextlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from unicross.data import decoding
from unicross.data.decoding import ImageError, check_header, decode, image_kind
from unicross.data.image_source import ImageFile
from unicross.data.images import decode_batches, load_square, reduced, thumbnail, to_square
from unicross.errors import DataError

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "flickr8k"

RED, BLUE = (220, 20, 20), (20, 20, 220)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(width: int = 64, height: int = 32) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def smooth(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def near(pixel: object, colour: tuple[int, int, int], within: int = 12) -> bool:
    return bool(np.abs(np.asarray(pixel).astype(int) - colour).max() <= within)


class TestDecode:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000"])
    def test_kinds(self, kind: str) -> None:
        image = decode(encoded(halves(), kind), "x")
        assert (image.mode, image.size) == ("RGB", (64, 32))
        assert near(image.getpixel((5, 5)), RED)
        assert near(image.getpixel((60, 5)), BLUE)

    @pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
    def test_modes_become_rgb(self, mode: str) -> None:
        kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
        image = decode(encoded(Image.new("RGB", (8, 8), "white").convert(mode), kind), "x")
        assert image.mode == "RGB"
        assert near(image.getpixel((4, 4)), (255, 255, 255))

    def test_cmyk_jpeg(self) -> None:
        assert near(decode(encoded(halves().convert("CMYK"), "JPEG"), "x").getpixel((5, 5)), RED)

    def test_every_exif_orientation_is_shown_upright(self, tmp_path: Path) -> None:
        upright = np.asarray(smooth(40, 24)).astype(int)
        undone = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.swapaxes(0, 1),
            6: np.rot90(upright),
            7: np.rot90(upright, 2).swapaxes(0, 1),
            8: np.rot90(upright, -1),
        }
        for orientation, stored in undone.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = encoded(Image.fromarray(stored.astype(np.uint8)), "JPEG", exif=exif, quality=95)
            shown = np.asarray(decode(data, "x")).astype(int)
            assert shown.shape == upright.shape, orientation
            assert np.abs(shown - upright).mean() < 3, orientation
            (tmp_path / "a.jpg").write_bytes(data)
            for source in (Image.open(io.BytesIO(data)), tmp_path / "a.jpg"):
                square = load_square(source, 16, "squash").astype(int)
                assert np.abs(square - to_square(smooth(40, 24), 16, "squash")).mean() < 3

    def test_broken_exif_leaves_the_picture(self) -> None:
        data = encoded(halves(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 20)
        assert near(decode(data, "x").getpixel((5, 5)), RED)

    def test_transparent_parts_are_white(self) -> None:
        image = Image.new("RGBA", (8, 8), (*RED, 0))
        image.paste((*BLUE, 255), (4, 0, 8, 8))
        for data in (encoded(image), encoded(image, "WEBP", lossless=True), encoded(image, "GIF")):
            shown = decode(data, "x")
            assert near(shown.getpixel((1, 1)), (255, 255, 255))
            assert near(shown.getpixel((6, 1)), BLUE)

    def test_a_transparent_colour_of_an_rgb_png(self) -> None:
        shown = decode(encoded(halves(), transparency=RED), "x")
        assert near(shown.getpixel((1, 1)), (255, 255, 255))
        assert near(shown.getpixel((60, 1)), BLUE)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
    def test_sixteen_bits_keep_their_brightness(self, kind: str) -> None:
        ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
        shown = np.asarray(decode(encoded(Image.fromarray(ramp), kind), "x"))
        assert np.abs(shown[0, :, 0].astype(int) - np.arange(256)).max() <= 1

    def test_floats_are_stretched(self) -> None:
        ramp = np.linspace(-1, 3, 256, dtype=np.float32)[None].repeat(4, 0)
        shown = np.asarray(decode(encoded(Image.fromarray(ramp), "TIFF"), "x"))
        assert np.abs(shown[0, :, 0].astype(int) - np.arange(256)).max() <= 1

    def test_first_frame_of_an_animation(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
        for kind in ("GIF", "WEBP", "PNG"):
            data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
            assert near(decode(data, "x").getpixel((4, 4)), RED)


class TestDamage:
    def test_truncated(self) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        for kind in ("JPEG", "PNG", "WEBP"):
            data = encoded(Image.fromarray(noise), kind)
            with pytest.raises(DataError, match=r"^some\.jpg: .*: replace it or remove it"):
                decode(data[: len(data) // 2], "some.jpg")

    def test_truncated_jpeg_by_either_decoder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(encoded(smooth(64, 64), "JPEG")[:-200])
        with pytest.raises(DataError, match="truncated"):
            load_square(path, 16, "squash")
        monkeypatch.setattr(decoding, "simplejpeg", None)
        with pytest.raises(DataError, match="truncated"):
            load_square(path, 16, "squash")

    @pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"<html>", "not an image")])
    def test_no_image(self, data: bytes, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=rf"^x\.png: .*{message}"):
            decode(data, "x.png")
        (tmp_path / "x.png").write_bytes(data)
        assert message in (check_header(tmp_path / "x.png") or "")

    def test_postscript_is_never_run(self) -> None:
        data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
        with pytest.raises(DataError, match="not an image"):
            decode(data, "x.eps")

    @settings(max_examples=60)
    @given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP"]), st.data())
    def test_any_damage_is_a_data_error(self, noise: bytes, kind: str, draw: st.DataObject) -> None:
        data = encoded(halves(16, 16), kind)
        at = draw.draw(st.integers(0, len(data)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata
            with contextlib.suppress(DataError):  # anything else fails the test
                assert decode(data[:at] + noise + data[at + len(noise) :], "x").mode == "RGB"

    @pytest.mark.parametrize("size", [(20000, 5000), (60000, 60000)])
    def test_pixel_bombs(self, size: tuple[int, int], tmp_path: Path) -> None:
        png = bytearray(encoded(Image.new("1", (8, 8))))
        png[16:24] = struct.pack(">II", *size)
        png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
        (tmp_path / "x.png").write_bytes(png)
        with pytest.raises(DataError, match="Pillow's limit"):
            decode(bytes(png), "x.png")
        assert "Pillow's limit" in (check_header(tmp_path / "x.png") or "")

    def test_the_limit_holds_for_jpegs_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(encoded(halves(), "JPEG"))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(DataError, match="Pillow's limit of 1000"):
            load_square(path, 16, "squash")

    def test_unreadable_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.png: cannot be read: No such file"):
            load_square(tmp_path / "gone.png", 8, "crop")


class TestSquares:
    def test_squash_keeps_all_and_crop_keeps_proportions(self) -> None:
        image = Image.new("RGB", (90, 30), RED)
        image.paste(BLUE, (30, 0, 60, 30))
        squashed, cropped = (to_square(image, 30, how) for how in ("squash", "crop"))
        assert squashed.shape == cropped.shape == (30, 30, 3)
        assert near(squashed[15, 2], RED)
        assert near(squashed[15, 15], BLUE)
        assert near(cropped[:, 2:-2].reshape(-1, 3).mean(0), BLUE)

    def test_a_square_of_the_right_side_is_left_as_it_is(self) -> None:
        image = smooth(24, 24)
        assert (to_square(image, 24, "crop") == np.asarray(image)).all()

    def test_shrinking_averages_instead_of_picking_pixels(self) -> None:
        board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
        square = to_square(Image.fromarray(board).convert("RGB"), 16, "squash")
        assert near(square[4:-4, 4:-4].reshape(-1, 3).mean(0), (127, 127, 127), 4)
        assert square[4:-4, 4:-4].std() < 6

    def test_every_kind_of_source_gives_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        smooth(50, 30).save(path)
        array: NDArray[np.uint8] = np.asarray(smooth(50, 30))
        sources = [path, str(path), ImageFile(path), Image.open(path), array]
        squares = [load_square(source, 16, "crop") for source in sources]
        assert all((square == squares[0]).all() for square in squares)

    @pytest.mark.parametrize(
        "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
    )
    def test_arrays_must_be_rgb_bytes(self, array: NDArray[np.uint8]) -> None:
        with pytest.raises(DataError, match=r"must be uint8 \[height, width, 3\]"):
            load_square(array, 8, "squash")

    def test_batches_keep_their_order_and_errors_their_place(self) -> None:
        sources = [np.full((9, 9, 3), value, np.uint8) for value in range(40)]
        sources[17] = np.zeros((4, 4), np.uint8)
        batches = list(decode_batches(sources, 4, "squash", 16))
        assert [len(batch) for batch in batches] == [16, 16, 8]
        decoded = [square for batch in batches for square in batch]
        assert "must be uint8" in str(decoded.pop(17))
        assert [square[0, 0, 0] for square in decoded] == [*range(17), *range(18, 40)]
        assert list(decode_batches([], 4, "squash", 16)) == []

    @pytest.mark.parametrize("size", [(500, 375), (1600, 1200), (3000, 800)])
    def test_fast_jpegs_look_the_same(
        self, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("simplejpeg")
        path = tmp_path / "a.jpg"
        blocks = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
        image = Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)  # detail that a view can show
        image.save(path, quality=95)
        fast = load_square(path, 112, "squash").astype(int)
        plain = load_square(np.asarray(image), 112, "squash")
        monkeypatch.setattr(decoding, "simplejpeg", None)
        slow = load_square(path, 112, "squash")
        assert np.abs(fast - slow).mean() < 2
        assert np.abs(slow.astype(int) - plain).mean() < 2


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real Flickr8k is not at ../shared/data/flickr8k")
def test_real_photos_by_both_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    paths = sorted((SHARED / "Images").iterdir())[:20]
    fast = [load_square(path, 128, "squash").astype(int) for path in paths]
    monkeypatch.setattr(decoding, "simplejpeg", None)
    slow = [load_square(path, 128, "squash") for path in paths]
    assert np.abs(np.stack(fast) - np.stack(slow)).max() <= 2


class TestFaults:
    """Why an image is refused, for callers that answer differently."""

    @pytest.mark.parametrize(
        ("data", "fault"),
        [
            (b"", "empty"),
            (b"<svg/>", "no image"),
            (encoded(halves(), "TIFF"), "no image"),  # a kind that is not asked for
            (encoded(halves(100, 20)), "too large"),
            (encoded(halves(100, 10))[:60], "damaged"),
        ],
    )
    def test_each_has_its_name(self, data: bytes, fault: str) -> None:
        with pytest.raises(ImageError, match=r"^x: ") as error:
            decode(data, "x", kinds=("PNG",), max_pixels=1000)
        assert error.value.fault == fault
        assert error.value.reason in str(error.value)

    def test_the_limit_holds_for_the_fast_decoder_too(self) -> None:
        with pytest.raises(ImageError, match="100×20 pixels, above the limit of 1000"):
            decode(encoded(halves(100, 20), "JPEG"), "x", max_pixels=1000, fast=True)

    def test_a_fast_jpeg_keeps_its_size_unless_it_may_be_smaller(self) -> None:
        data = encoded(halves(640, 320), "JPEG")
        assert decode(data, "x", fast=True).size == (640, 320)
        assert decode(data, "x", 100, fast=True).size < (640, 320)

    def test_a_kind_is_what_the_bytes_say(self) -> None:
        assert image_kind(encoded(halves(), "GIF")) == "GIF"
        assert image_kind(b"<svg/>") is None


class TestThumbnails:
    @pytest.mark.parametrize(
        ("size", "box", "cover", "expected"),
        [
            ((400, 200), (100, 100), False, (100, 50)),
            ((400, 200), (100, 100), True, (200, 100)),
            ((200, 400), (224, 112), False, (56, 112)),
            ((900, 100), (224, 112), False, (224, 25)),
            ((80, 40), (100, 100), False, (80, 40)),  # never enlarged
            ((80, 40), (60, 60), True, (80, 40)),
            ((5000, 2), (100, 100), False, (100, 1)),
        ],
    )
    def test_sizes(
        self, size: tuple[int, int], box: tuple[int, int], cover: bool, expected: tuple[int, int]
    ) -> None:
        with Image.open(io.BytesIO(thumbnail(smooth(*size), box, cover=cover))) as small:
            assert (small.format, small.size) == ("JPEG", expected)

    def test_it_looks_like_the_picture(self) -> None:
        with Image.open(io.BytesIO(thumbnail(halves(640, 320), (64, 64)))) as small:
            assert near(small.getpixel((5, 5)), RED)
            assert near(small.getpixel((60, 5)), BLUE)

    def test_reducing_leaves_enough_for_a_good_resize(self) -> None:
        assert reduced(smooth(1000, 500), 100).size == (500, 250)
        assert reduced(smooth(300, 300), 100).size == (300, 300)
