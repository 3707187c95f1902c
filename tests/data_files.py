"""Small data sets written for tests."""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unicross.data.image_source import ImageFile
from unicross.data.items import Item


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 30, 30)).save(path)
    return path


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def ids(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def karpathy(path: Path, *images: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "dataset": "x"}))
    return path


def entry(name: str, split: str, *captions: str, **more: object) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": text} for text in captions], **more}


def image_path(item: Item) -> Path:
    assert isinstance(item.images[0], ImageFile)
    return item.images[0].path


def flickr(root: Path) -> Path:
    """Flickr8k's layout: a and b in train, c in dev, d in no list and without a picture."""
    for name in "abc":
        picture(root / "Images" / f"{name}.jpg")
    write(
        root / "Flickr8k.token.txt",
        *(f"{name}.jpg#{k}\tcaption {k} of {name} ." for name in "abcd" for k in range(5)),
    )
    write(root / "Flickr_8k.trainImages.txt", "b.jpg", "a.jpg")
    write(root / "Flickr_8k.devImages.txt", "c.jpg")
    return root
