"""What is left of recall where vectors are cut: to their first numbers, and to principal axes.

    python benchmarks/cut_vectors.py ROOT SPLIT RUN [RUN ...] [--train train] [--dims 96 48 24 12]
                                     [--samples 2000]

Prints R@1 + R@5 + R@10 of each run on a split by the size of its vectors: of pictures by texts, and of texts
by pictures. The axes are those of the vectors of training items, as `unicross index --dim` has them: of
pictures and captions together, which count alike, and of pictures alone, for each number in --samples.
"""

from __future__ import annotations

import argparse

import numpy as np

from unicross import TwoTower, load_items
from unicross.axes import principal_axes
from unicross.data.items import Items
from unicross.embed import Vectors
from unicross.evaluation import evaluate_embeddings


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("split")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--train", default="train")
    parser.add_argument("--dims", type=int, nargs="+", default=[96, 48, 24, 12])
    parser.add_argument("--samples", type=int, nargs="+", default=[2000])
    given = parser.parse_args()
    shown, seen = (Items.of(load_items(given.root, split).items) for split in (given.split, given.train))
    sample = np.random.default_rng(0).permutation(len(seen))[: max(given.samples)]
    for run in given.runs:
        model = TwoTower.load(run)
        images, texts = vectors(model, shown)
        seen_images, seen_texts = vectors(model, seen.select(sample))
        turns = {
            "first numbers": np.eye(model.dim),
            f"axes of {len(sample)} items": principal_axes([seen_images, seen_texts], model.dim),
        }
        for count in given.samples:
            turns[f"axes of {count} pictures"] = principal_axes([seen_images[:count]], model.dim)
        for name, turn in turns.items():
            cells = (
                f"{dim}: {sums(images @ turn[:, :dim], texts @ turn[:, :dim], shown)}" for dim in given.dims
            )
            print(run, name, *cells, sep="\t", flush=True)


def vectors(model: TwoTower, items: Items) -> tuple[Vectors, Vectors]:
    """Of all pictures and captions of the items, [P, D] and [C, D]."""
    pictures = [items.image(position) for position in range(len(items.images))]
    return model.encode_images(pictures), model.encode_texts(items.texts.to_pylist())


def sums(images: Vectors, texts: Vectors, items: Items) -> str:
    """R@1 + R@5 + R@10 of pictures by texts, and of texts by pictures."""
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (images, texts)]
    metrics = evaluate_embeddings(
        *unit, items.item_of_text, image_item=items.item_of_image, item_ids=items.ids.to_pylist()
    ).metrics
    return " + ".join(f"{sum(metrics[f'{way}/R@{k}'] for k in (1, 5, 10)):.1f}" for way in ("t2i", "i2t"))


if __name__ == "__main__":
    main()
