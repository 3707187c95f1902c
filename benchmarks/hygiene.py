"""How much of what is wrong `unicross data --check` finds: faults are planted in clean data and looked for.

    python benchmarks/hygiene.py FLICKR8K [--model RUN_OR_PAIR] [--items 7000] [--keep FOLDER]

100 duplicates: a quarter each copied, compressed again, made smaller, and cut by 2 % at each border and
compressed. 50 leaks: pictures to train on that are in the split held out as well, in the same ways. 100
captions swapped between two items, one of five of each. A duplicate has the captions of its original.

Swapped captions are looked for by each `--model`: one that never saw the data, one trained on clean pairs, or
one trained on what `--keep` leaves behind, the faults included. Precision counts what was planted only, so
twins and wrong captions that the data had before count against it: they are printed.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DUPLICATES, LEAKS, SWAPPED = 100, 50, 100
WAYS = ("copied", "compressed", "smaller", "cut")


def plant_picture(source: Path, target: Path, way: str) -> None:
    """Another file of the same picture."""
    if way == "copied":
        target.write_bytes(source.read_bytes())
        return
    image = Image.open(source).convert("RGB")
    width, height = image.size
    if way == "smaller":
        image = image.resize((round(width * 0.6), round(height * 0.6)), Image.Resampling.BICUBIC)
    if way == "cut":
        x, y = round(width * 0.02), round(height * 0.02)
        image = image.crop((x, y, width - x, height - y))
    image.save(target, quality=60)


def plant(data: Path, home: Path, count: int) -> dict[str, Any]:
    """Write a table of the data with faults, and say what they are by image id."""
    from unicross.data.load import load_items

    rng = np.random.default_rng(0)
    train, dev = (load_items(data, split).items for split in ("train", "dev"))
    train = train[: round(count * 6 / 7)]
    dev = dev[: count - len(train)]
    lines = [[item, "train"] for item in train] + [[item, "dev"] for item in dev]
    captions = {item.id: list(item.captions) for item, _ in lines}
    chosen = rng.permutation(len(train))
    planted: dict[str, Any] = {"copy": {}, "swapped": set()}
    table = []
    swapping = [train[int(i)].id for i in chosen[:SWAPPED]]
    for one, other in zip(swapping[::2], swapping[1::2], strict=True):
        a, b = rng.integers(len(captions[one])), rng.integers(len(captions[other]))
        captions[one][a], captions[other][b] = captions[other][b], captions[one][a]
        planted["swapped"] |= {(one, captions[one][a]), (other, captions[other][b])}
    for number, i in enumerate(chosen[SWAPPED : SWAPPED + DUPLICATES + LEAKS]):
        item, way = train[int(i)], WAYS[number % len(WAYS)]
        kind = "duplicate" if number < DUPLICATES else "leak"
        path = home / f"planted-{number}.jpg"
        plant_picture(Path(item.images[0].name), path, way)
        planted["copy"][frozenset((path.name, item.id))] = (kind, way)
        split = "train" if kind == "duplicate" else "dev"
        table += [(path, path.name, caption, split) for caption in captions[item.id]]
    for item, split in lines:
        table += [(item.images[0].name, item.id, caption, split) for caption in captions[item.id]]
    order = rng.permutation(len({row[1] for row in table}))  # copies stand anywhere among the others
    place = dict(zip(dict.fromkeys(row[1] for row in table), order, strict=True))
    with (home / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "image_id", "caption", "split"])
        writer.writerows(sorted(table, key=lambda row: place[row[1]]))
    return planted


def report_twins(checked: Any, planted: dict[str, Any]) -> None:
    """Recall by kind and way, precision, and what was found that was not planted."""
    ids = checked.items.ids
    found = {}
    for finding in checked.findings:
        if finding.twin is not None:
            found[frozenset((ids[finding.item].as_py(), ids[finding.twin].as_py()))] = finding
    for kind in ("duplicate", "leak"):
        ways = Counter(way for of, way in planted["copy"].values() if of == kind)
        hit = Counter(planted["copy"][pair][1] for pair in found if planted["copy"].get(pair, " ")[0] == kind)
        listed = [pair for pair, finding in found.items() if (finding.kind == "leak") == (kind == "leak")]
        right = sum(planted["copy"].get(pair, " ")[0] == kind for pair in listed)
        by_way = ", ".join(f"{way} {hit[way]}/{ways[way]}" for way in WAYS)
        print(f"| {kind}s | {sum(hit.values())} of {ways.total()} | {right} of {len(listed)} | {by_way} |")
    for pair, finding in found.items():
        if pair not in planted["copy"]:
            print(f"not planted: {checked.name(finding.item)}: {finding.kind}, {finding.what}")


def report_suspects(
    name: str, items: Any, suspects: Any, swapped: set[tuple[str, str]], seconds: float
) -> None:
    found = suspects.found
    planted = np.array(
        [
            (items.ids[int(item)].as_py(), items.texts[int(caption)].as_py()) in swapped
            for item, caption in zip(suspects.item, suspects.caption, strict=True)
        ]
    )
    ranked = planted[found.order]
    first = ranked[: len(swapped)].sum()
    precision = (np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean()
    print(
        f"| {name} | {ranked[: found.count].sum()} of {ranked.sum()} | {found.count} listed, {first} of the "
        f"first {len(swapped)} planted | average precision {precision:.2f} | {seconds:.0f} s |"
    )
    for k in found.order[: 3 * len(swapped)][~ranked[: 3 * len(swapped)]][:5]:
        item, caption = int(suspects.item[k]), int(suspects.caption[k])
        print(f"  not planted: {items.ids[item].as_py()}: {items.texts[caption].as_py()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--items", type=int, default=7000)
    parser.add_argument("--keep", type=Path, help="Where to leave the planted data, to train on.")
    arguments = parser.parse_args()

    from unicross.data.items import Items
    from unicross.data.load import load_items, survey
    from unicross.hygiene.check import check
    from unicross.model import TwoTower
    from unicross.suspects import suspects_of

    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as temporary:
        home = arguments.keep or Path(temporary)
        home.mkdir(exist_ok=True)
        planted = plant(arguments.data, home, arguments.items)
        found = survey(home)
        wall, processor = time.perf_counter(), time.process_time()
        checked = check(found.splits, lambda _: lambda *_: None)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        pictures, captions = len(checked.items), len(checked.items.texts)
        print(f"{pictures} pictures, {captions} captions: {wall:.0f} s, {processor:.0f} s of processor time")
        report_twins(checked, planted)
        train = load_items(home, "train").items
        single = Items.of([replace(item, captions=_one(item, planted)) for item in train])
        for path in arguments.model:
            model = TwoTower.load(path)
            for name, items in ((f"{path.name}, all captions", train), (f"{path.name}, one an item", single)):
                started = time.perf_counter()
                suspects = suspects_of(model, items)
                report_suspects(name, items, suspects, planted["swapped"], time.perf_counter() - started)


def _one(item: Any, planted: dict[str, Any]) -> tuple[str, ...]:
    """One caption of an item: the swapped one where there is one."""
    swapped = [text for text in item.captions if (item.id, text) in planted["swapped"]]
    return (swapped or list(item.captions))[:1]


if __name__ == "__main__":
    main()
