"""What is left of recall where vectors are cut: to their first numbers, and in their principal axes.

    python benchmarks/cut_vectors.py ROOT SPLIT RUN [RUN ...] [--train train] [--dims 96 48 24 12]

Prints the rSum of each run on a split by the size of its vectors. The axes are those of the vectors of up to
2,000 training items, which are not centred; to turn all vectors into them changes no cosine.
"""

from __future__ import annotations

import argparse

import numpy as np

from unicross import TwoTower, load_items
from unicross.data.items import Items
from unicross.embed import Vectors
from unicross.evaluation import evaluate_embeddings

SAMPLE = 2000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("split")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--train", default="train")
    parser.add_argument("--dims", type=int, nargs="+", default=[96, 48, 24, 12])
    given = parser.parse_args()
    shown, seen = (Items.of(load_items(given.root, split).items) for split in (given.split, given.train))
    sample = np.random.default_rng(0).permutation(len(seen))[:SAMPLE]
    for run in given.runs:
        model = TwoTower.load(run)
        images, texts = vectors(model, shown)
        axes = principal_axes(*vectors(model, seen.select(sample)))
        for name, turn in (("first numbers", np.eye(model.dim)), ("principal axes", axes)):
            sums = [r_sum(images @ turn[:, :dim], texts @ turn[:, :dim], shown) for dim in given.dims]
            cells = (f"{dim}: {value:.1f}" for dim, value in zip(given.dims, sums, strict=True))
            print(run, name, *cells, sep="\t", flush=True)


def vectors(model: TwoTower, items: Items) -> tuple[Vectors, Vectors]:
    """Of all pictures and captions of the items, [P, D] and [C, D]."""
    pictures = [items.image(position) for position in range(len(items.images))]
    return model.encode_images(pictures), model.encode_texts(items.texts.to_pylist())


def principal_axes(images: Vectors, texts: Vectors) -> Vectors:
    """Orthonormal axes [D, D] as columns, that of the most energy first; both modalities count alike."""
    energy = images.T @ images / len(images) + texts.T @ texts / len(texts)
    return np.linalg.eigh(energy)[1][:, ::-1]


def r_sum(images: Vectors, texts: Vectors, items: Items) -> float:
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (images, texts)]
    found = evaluate_embeddings(
        *unit, items.item_of_text, image_item=items.item_of_image, item_ids=items.ids.to_pylist()
    )
    return found.metrics["rsum"]


if __name__ == "__main__":
    main()
