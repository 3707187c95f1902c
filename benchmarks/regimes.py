"""Write the data of the regimes in docs/results.md as tables: `python benchmarks/regimes.py FLICKR8K OUT`.

* `few.jsonl` (B): 600 items with their captions; the other 5,400 images and their captions, in groups of
  five, unpaired. Which are which does not depend on a run's seed.
* `disjoint.jsonl` (B): the same with 2,700 of those images and the captions of the 2,700 others, so that no
  image alone has its own caption among the captions alone.
* `pool.jsonl`: 1,000 training images set aside as a second evaluation pool (split `pool`), to tune on.
* `a2000.jsonl`: the same with 2,000 of the training items only, a quick stand-in for regime A at its end.
* `noisy20.jsonl`, `noisy40.jsonl`, `noisy60.jsonl` (G): those 2,000 items, of which so many percent have the
  captions of another (`is_wrong`), and the held-out items.
* `languages.jsonl` (F), with `--languages FOLDER`: all items, each with its English captions and the Chinese
  ones of `FOLDER/Flickr8k.zh.token.txt`; read with `data.caption=[en.caption,zh.caption]`.
* `languages51.jsonl`: the same, where items to train on have only one of their Chinese captions.
* `products.csv`, with `--emoji FOLDER`: a made catalogue, a row a picture of 600 items, with English and
  German titles and English tags.
* `scenes.jsonl` (H), with `--scenes`: the drawn scenes of D, 16,000 to train on and 1,000 held out. Each of
  the latter has a second picture of another look, so that a picture can be found by a picture.

Each image path is absolute, so the tables serve only on the machine that wrote them.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unicross.data.image_source import ImageFile
from unicross.data.items import Item
from unicross.data.load import load_items
from unicross.demo.scenes import draw, make_scenes, write_demo_set

FEW, POOL, SOME, SEED = 600, 1000, 2000, 2023
NOISE = (20, 40, 60)
"""Percent."""
PRODUCTS = 600
SOLD = ("objects", "food-drink", "animals-nature", "activities", "travel-places")
"""Groups of emoji that a shop could have."""
SCENES, HELD_OUT_SCENES = 16_000, 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("flickr8k", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--languages", type=Path)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--scenes", action="store_true")
    arguments = parser.parse_args()
    train, dev = (load_items(str(arguments.flickr8k), split).items for split in ("train", "dev"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(SEED).permutation(len(train))
    few = [_record(train[i], "train") for i in order[:FEW]]
    held = [_record(item, "dev") for item in dev]
    half = (FEW + len(train)) // 2
    for name, seen, told in (
        ("few", order[FEW:], order[FEW:]),
        ("disjoint", order[FEW:half], order[half:]),
    ):
        images = [_record(train[i], "train") | {"caption": None} for i in seen]
        texts = [{"caption": list(train[i].captions), "split": "train"} for i in sorted(told)]
        _write(arguments.out / f"{name}.jsonl", few + images + texts + held)
    pool = [_record(train[i], "pool") for i in order[:POOL]]
    rest = [_record(train[i], "train") for i in order[POOL:]]
    _write(arguments.out / "pool.jsonl", pool + rest + held)
    _write(arguments.out / "a2000.jsonl", rest[:SOME] + pool + held)
    for percent in NOISE:
        _write(arguments.out / f"noisy{percent}.jsonl", _with_noise(rest[:SOME], percent) + held)
    if arguments.emoji:
        _write_products(arguments.emoji.resolve(), arguments.out / "products.csv")
    if arguments.scenes:
        _write_scenes(arguments.out.resolve())
    if arguments.languages:
        chinese = _captions(arguments.languages / "Flickr8k.zh.token.txt")
        seen = [_record(item, "train") for item in train]
        for name, most in (("languages", None), ("languages51", 1)):
            both = [_in_two_languages(record, chinese, most) for record in seen]
            both += [_in_two_languages(record, chinese) for record in held]
            _write(arguments.out / f"{name}.jsonl", both)


def _with_noise(records: list[dict[str, Any]], percent: int) -> list[dict[str, Any]]:
    """The records, of which so many percent, drawn at random, pass their captions on in a ring."""
    drawn = np.random.default_rng(SEED).permutation(len(records))[: len(records) * percent // 100]
    captions = {
        here: records[before]["caption"] for here, before in zip(drawn, np.roll(drawn, 1), strict=True)
    }
    return [
        record | {"caption": captions.get(number, record["caption"]), "is_wrong": number in captions}
        for number, record in enumerate(records)
    ]


def _captions(path: Path) -> dict[str, list[str]]:
    """Captions by the name of their picture, from lines of `name.jpg#k<TAB>caption`."""
    captions: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t")
        captions.setdefault(name.split("#")[0], []).append(caption)
    return captions


def _in_two_languages(
    record: dict[str, Any], chinese: dict[str, list[str]], most: int | None = None
) -> dict[str, Any]:
    captions = {"en": record["caption"], "zh": chinese[Path(record["image"]).name][:most]}
    return {key: record[key] for key in ("image", "split")} | {
        language: {"caption": texts} for language, texts in captions.items()
    }


def _write_products(emoji: Path, path: Path) -> None:
    lines = (emoji / "items.jsonl").read_text(encoding="utf-8").splitlines()
    items = [item for item in map(json.loads, lines) if item["group"] in SOLD and len(item["images"]) == 5]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "photo", "title.en", "title.de", "tags.en"])
        for item in items[:PRODUCTS]:
            texts = [item["en"]["label"], item["de"]["label"], ", ".join(item["en"]["tags"])]
            writer.writerows([item["id"], str(emoji / image), *texts] for image in item["images"].values())


def _write_scenes(out: Path) -> None:
    write_demo_set(out / "scenes", SCENES, HELD_OUT_SCENES, 0)
    again = out / "scenes-again"
    again.mkdir(exist_ok=True)
    records = [_record(item, "train") for item in load_items(str(out / "scenes"), "train").items]
    scenes = make_scenes(SCENES + HELD_OUT_SCENES, 0)
    for item in load_items(str(out / "scenes"), "val").items:
        record = _record(item, "val")
        scene = scenes[int(Path(record["image"]).stem)]
        second = again / Path(record["image"]).name
        picture = draw(replace(scene, look=scene.look ^ 1), 96)
        picture.save(second, quality=92, subsampling=0)
        records.append(record | {"image": [record["image"], str(second)]})
    _write(out / "scenes.jsonl", records)


def _record(item: Item, split: str) -> dict[str, Any]:
    (image,) = item.images
    assert isinstance(image, ImageFile)
    return {"image": str(image.path.resolve()), "caption": list(item.captions), "split": split}


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
