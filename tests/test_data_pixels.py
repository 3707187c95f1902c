"""Pictures by item index: the same from every cache, decoded once, rebuilt when a file changes."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_files import write
from unicross import files
from unicross.data import pixels as pixels_module
from unicross.data.image_source import ImageFile
from unicross.data.images import load_square
from unicross.data.items import Item
from unicross.data.pixels import LazyPixels, PixelCache
from unicross.errors import DataError

SIDE = 12


@dataclass(frozen=True)
class Counted:
    """An image source that counts how often it is read."""

    file: ImageFile
    reads: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.file.name

    def read(self) -> bytes:
        self.reads.append(self.name)
        return self.file.read()

    def stamp(self) -> str:
        return self.file.stamp()


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Six images of different colours: of six items, one a text alone and one with two images."""
    images = []
    for index in range(6):
        path = tmp_path / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 16), (40 * index, 255 - 40 * index, 7)).save(path)
        images.append(Counted(ImageFile(path)))
    parts = (images[:1], images[1:2], [], images[2:4], images[4:5], images[5:])
    return [Item(str(index), tuple(part), ("a caption",)) for index, part in enumerate(parts)]


def images_of(items: list[Item]) -> list[Counted]:
    return [image for item in items for image in item.images if isinstance(image, Counted)]


def reads(items: list[Item]) -> int:
    return sum(len(image.reads) for image in images_of(items))


def expected(items: list[Item], indices: list[int]) -> np.ndarray:
    return np.stack([load_square(Path(images_of(items)[i].name), SIDE, "squash") for i in indices])


def test_all_kinds_give_the_images_asked_for(items: list[Item], tmp_path: Path) -> None:
    kinds = [
        PixelCache.build(items, SIDE, "squash"),
        PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache"),
        LazyPixels.build(items, SIDE, "squash", workers=2),
    ]
    for pixels in kinds:
        assert len(pixels) == 6
        for asked in ([5, 0, 3, 3], np.array([1]), np.array([], np.int64)):
            got = pixels[asked]
            assert got.dtype == np.uint8
            assert got.shape == (len(asked), SIDE, SIDE, 3)
            if len(asked):
                assert (got == expected(items, list(asked))).all()
        part = pixels.select([4, 2, 1])
        assert len(part) == 3
        assert (part[[2, 0]] == expected(items, [1, 4])).all()


def test_items_are_decoded_once(items: list[Item]) -> None:
    pixels = PixelCache.build(items, SIDE, "squash")
    for _ in range(3):
        pixels[[0, 1, 3]]
    assert reads(items) == 6


def test_a_cache_on_disk_is_found_again_without_decoding(items: list[Item], tmp_path: Path) -> None:
    first = PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache")
    assert reads(items) == 6
    again = PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache")
    assert reads(items) == 6
    assert (again[[0, 1, 5]] == first[[0, 1, 5]]).all()
    assert isinstance(again.pixels, np.memmap)


def test_a_cache_on_disk_is_made_anew_when_anything_changes(items: list[Item], tmp_path: Path) -> None:
    def decoded_by(*args: object) -> int:
        before = reads(items)
        PixelCache.build(*args, where=tmp_path / "cache")  # type: ignore[arg-type]
        return reads(items) - before

    assert decoded_by(items, SIDE, "squash") == 6
    assert decoded_by(items, SIDE + 1, "squash") == 6
    assert decoded_by(items, SIDE, "crop") == 6
    assert decoded_by(items[1:], SIDE, "squash") == 5
    changed = Path(images_of(items)[0].name)
    changed.write_bytes(changed.read_bytes())
    os.utime(changed, ns=(1, 1))
    assert decoded_by(items, SIDE, "squash") == 6
    assert decoded_by(items, SIDE, "squash") == 0


def test_a_killed_build_leaves_nothing_that_would_be_taken_for_a_cache(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync_file", killed)
        with pytest.raises(KeyboardInterrupt):
            PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache")
    before = reads(items)
    pixels = PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache")
    assert reads(items) - before == 6
    assert (pixels[[5]] == expected(items, [5])).all()
    assert [p.suffix for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [""]


def test_bad_pictures_are_collected_into_one_error(items: list[Item], tmp_path: Path) -> None:
    for index in (1, 4):
        Path(images_of(items)[index].name).write_bytes(b"junk")
    message = r"2 unreadable images\n  .*1\.png: unreadable image: not an image(.|\n)*data\.on_error=skip"
    with pytest.raises(DataError, match=message):
        PixelCache.build(items, SIDE, "squash")
    for where in (tmp_path / "cache", tmp_path / "cache", None):
        pixels = PixelCache.build(items, SIDE, "squash", where=where, on_error="skip")
        assert pixels.bad_images == [1, 4]
        assert [problem.where for problem in pixels.bad] == [images_of(items)[i].name for i in (1, 4)]
        assert (pixels[[0, 5]] == expected(items, [0, 5])).all()
        with pytest.raises(AssertionError):
            pixels[[1]]
    with pytest.raises(DataError, match="2 unreadable images"):
        PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache")


def test_without_a_cache_bad_pictures_are_known_beforehand_when_skipping(items: list[Item]) -> None:
    Path(images_of(items)[3].name).write_bytes(b"junk")
    assert LazyPixels.build(items, SIDE, "squash", on_error="skip").bad_images == [3]
    lazy = LazyPixels.build(items, SIDE, "squash")
    assert lazy.bad_images == []
    with pytest.raises(DataError, match=r"3\.png: not an image"):
        lazy[[0, 3]]


def test_a_folder_that_cannot_be_written_to(items: list[Item], tmp_path: Path) -> None:
    blocked = write(tmp_path / "file", "not a folder")
    with pytest.raises(DataError, match=r"cannot write the picture cache: .*data\.cache=memory"):
        PixelCache.build(items, SIDE, "squash", where=blocked / "cache")


def test_a_full_disk_leaves_no_remains(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync_file", full)
    with pytest.raises(DataError, match="No space left"):
        PixelCache.build(items, SIDE, "squash", where=tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_progress_ends_at_the_total(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels_module, "CHUNK", 2)
    calls: list[tuple[int, int]] = []
    pixels = PixelCache.build(items, SIDE, "squash", progress=lambda done, all_: calls.append((done, all_)))
    assert calls == [(2, 6), (4, 6), (6, 6)]
    assert (pixels[[0, 1, 3, 4, 5]] == expected(items, [0, 1, 3, 4, 5])).all()


def test_texts_only_need_no_pictures(tmp_path: Path) -> None:
    items = [Item("1", (), ("x",))]
    for where in (None, tmp_path / "cache"):
        assert PixelCache.build(items, SIDE, "squash", where=where)[[]].shape == (0, SIDE, SIDE, 3)
