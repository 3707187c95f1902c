"""Small pictures that would take hours: refused by their bytes, and no sound picture with them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from bombs import gif_comment, ppm_comment, scan_bomb, segment_bomb
from fake_model import FakeModel, paint
from unicross.data import bombs
from unicross.data.decoding import ImageError, check_header, decode, image_kind
from unicross.data.formats.embedded import embedded_captions
from unicross.embed import embed_images
from unicross.errors import DataError

BOMBS = {
    "scans": (scan_bomb(120), "scans"),
    "segments": (segment_bomb(20_000), "segments"),
    "comment of a PPM": (ppm_comment(2_000_000), "comments of more than"),
    "spaces of a PPM": (b"P6" + b" " * 100_000 + b"4 4 255\n" + bytes(48), "comments of more than"),
    "comment of a GIF": (gif_comment(8000), "comment of"),
    "numbers as text": (b"P3\n1000 1000\n255\n" + b"1 2 3\n" * 1_000_000, "written as text"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("fast", [False, True])
def test_bombs_are_refused_before_they_are_decoded(name: str, fast: bool) -> None:
    data, reason = BOMBS[name]
    with pytest.raises(ImageError, match=f"too long to decode: .*{reason}") as caught:
        decode(data, "a", 64, fast=fast)
    assert caught.value.fault == "too large"


def test_a_large_picture_may_have_fewer_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    data = scan_bomb(30)
    assert decode(data, "a").size == (64, 64)
    monkeypatch.setattr(bombs, "MOST_SCANNED", 64 * 64 * 20)
    for fast in (False, True):
        with pytest.raises(ImageError, match="scans of 4096 pixels"):
            decode(data, "a", fast=fast)


@pytest.mark.parametrize("name", ["comment of a PPM", "spaces of a PPM", "comment of a GIF"])
def test_no_header_is_looked_at_for_long(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(BOMBS[name][0])
    assert "too long" in (check_header(path) or "")
    assert image_kind(BOMBS[name][0]) is None
    assert embedded_captions(path) == {}


def test_indexing_names_a_bomb_and_takes_the_others(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jpg"
    bomb.write_bytes(scan_bomb(120))
    refused, taken = embed_images(FakeModel(), [bomb, paint(tmp_path / "good.png", "red")])
    assert isinstance(refused, DataError)
    assert "more than 100 scans" in str(refused)
    assert not isinstance(taken, DataError)


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.effect_noise((200, 150), 80).convert("RGB")
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def motion_photo() -> bytes:
    """A JPEG with a film behind it, in which anything may stand that a scan begins with."""
    return saved("JPEG") + b"\xff\xda\x00\x08" * 500


def with_preview() -> bytes:
    """A JPEG in whose profile lies a JPEG of many scans."""
    preview = scan_bomb(150)[:60_000]
    return (
        saved("JPEG")[:2] + b"\xff\xed" + (len(preview) + 2).to_bytes(2, "big") + preview + saved("JPEG")[2:]
    )


SOUND = {
    "baseline": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True, quality=97),
    "restart marks": saved("JPEG", progressive=True, restart_marker_rows=1),
    "with a film": motion_photo(),
    "with a preview": with_preview(),
    "comment": saved("GIF", comment=b"c" * 50_000),
    "ppm": saved("PPM"),
    "ppm of spaces": b"P6\n#" + b"x" * 1000 + b"\n200 150\n255\n" + b"  \n" * 200 * 150,
    "bitmap": b"P4 200 150\n" + b"\n" * 25 * 150,
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_pictures_pass(name: str) -> None:
    assert ImageOps.exif_transpose(decode(SOUND[name], "a")).size == (200, 150)
    assert decode(SOUND[name], "a", fast=True).size == (200, 150)
