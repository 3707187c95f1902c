"""What folds near-duplicates into one hit, and what it folds that is none: planted copies of real pictures.

    python benchmarks/folding.py CHECKPOINT FLICKR8K [--keep NAME]

200 pictures of dev get four copies each: compressed again, made smaller (60 %), cut by 2 % and by 10 % at
each border. Dev with all copies is the store, and the first caption of each of the 200 asks for it. The first
100 hits are folded as a search folds them. For each threshold, the store's own (`near_by_spread`) among them:
the copies of each kind that are as near to
their original; of the copies among the hits, those that are in one hit with another of their picture
(recall); of the hits that stand behind others, those of the same picture (precision). Then the pairs of
different pictures in dev that are as near, and the nearest of them by name, to be looked at.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embeddings import Embedded, embed_split
from experiments import keep
from hygiene import plant_picture
from unicross.embed import Vectors
from unicross.folding import near_by_spread, near_duplicates
from unicross.hybrid import CANDIDATES
from unicross.model import TwoTower

COPIED = 200
WAYS = ("compressed", "smaller", "cut", "cropped")
THRESHOLDS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
PRINTED = 30
"""Pairs of different pictures."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("flickr8k")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    model = TwoTower.load(arguments.checkpoint, "cpu")
    dev = embed_split(model, arguments.flickr8k, "dev", captions_each=5)
    chosen = np.random.default_rng(0).permutation(len(dev.pictures))[:COPIED]
    copies = {way: embed_copies(model, [dev.pictures[i] for i in chosen], way) for way in WAYS}
    cosines = dev.images @ dev.images.T  # [N, D] @ [D, N] -> [N, N]
    first, second = np.triu_indices(len(cosines), 1)
    different = cosines[first, second]  # [N (N - 1) / 2]
    for pair in np.argsort(-different)[:PRINTED]:
        one, other = (Path(dev.pictures[of[pair]]).name for of in (first, second))
        print(f"{different[pair]:.3f}  {one}  {other}")
    own = near_by_spread(np.concatenate([dev.images, *copies.values()]))
    print(f"mean cosine of two pictures {different.mean():.3f}; the store's own threshold {own:.4f}")
    figures = []
    for near in sorted((own, *THRESHOLDS)):
        by_way = {
            way: float((np.sum(made * dev.images[chosen], 1) >= near).mean()) for way, made in copies.items()
        }
        pairs = int((different >= near).sum())
        figures.append(
            {"near": near, "own": near == own}
            | by_way
            | folded(dev, chosen, copies, near)
            | {"different": pairs}
        )
        print({key: round(value, 3) for key, value in figures[-1].items()})
    if arguments.keep:
        keep(arguments.keep, rows=figures)


def embed_copies(model: TwoTower, pictures: list[str], way: str) -> Vectors:
    """Copies of pictures, made in one way: unit vectors [N, D]."""
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        targets = [Path(home) / f"{number}.jpg" for number in range(len(pictures))]
        for source, target in zip(pictures, targets, strict=True):
            if way == "cropped":
                crop_picture(Path(source), target)
            else:
                plant_picture(Path(source), target, way)
        return model.encode_images(targets)


def crop_picture(source: Path, target: Path) -> None:
    """A file of the picture without a tenth at each border."""
    image = Image.open(source).convert("RGB")
    width, height = image.size
    image.crop((width // 10, height // 10, width - width // 10, height - height // 10)).save(target)


def folded(dev: Embedded, chosen: np.ndarray, copies: dict[str, Vectors], near: float) -> dict[str, Any]:
    """How hits are folded where all copies are stored, by one query a copied picture."""
    stored = np.concatenate([dev.images, *copies.values()])  # [S, D]
    original = np.concatenate([np.arange(len(dev.images)), *[chosen for _ in copies]])  # [S]
    right = behind = copies_found = copies_folded = 0
    for picture in chosen:
        query = dev.texts[np.flatnonzero(dev.owner == picture)[0]]
        hits = np.argsort(-(stored @ query))[:CANDIDATES]  # [S, D] @ [D] -> [S]
        leaders = np.array(near_duplicates(stored[hits], near))
        followers = leaders != np.arange(len(hits))
        same = original[hits] == original[hits[leaders]]
        right += int((followers & same).sum())
        behind += int(followers.sum())
        of_picture = original[hits] == picture
        copies_found += max(0, int(of_picture.sum()) - 1)
        copies_folded += max(0, int(of_picture.sum()) - len(set(leaders[of_picture])))
    return {"recall": copies_folded / max(1, copies_found), "precision": right / max(1, behind)}


if __name__ == "__main__":
    main()
