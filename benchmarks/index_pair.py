"""A pretrained pair indexes pictures: `unicross index` against sentence-transformers, both in turn.

    python benchmarks/clip_pair.py PAIR
    python benchmarks/index_pair.py PAIR [--pictures 1000] [--turns 3] [--threads 2]

JPEGs of 512×384, no flags on either side: `index` into a new store each turn, `SentenceTransformer.encode` of
opened files. The same weights and pixels, so the vectors are compared too. Of each side the pictures a
second by the clock and by the processor's time, which others on the machine disturb less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from index import make_pictures
from unicross.embed import Vectors
from unicross.model import TwoTower
from unicross.store import StoreInfo, open_store
from unicross.store.archive import EmbeddingArchive
from unicross.store.index import index


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", type=Path)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = TwoTower.load(arguments.pair, "cpu")
    theirs = SentenceTransformer(str(arguments.pair), device="cpu")
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        paths = make_pictures(Path(home) / "photos", arguments.pictures)

        def ours(turn: int) -> Vectors:
            info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=model.dim)
            store = open_store(f"{home}/store{turn}", info)
            index(model, Path(home) / "photos", store, archive=EmbeddingArchive(Path(home) / f"a{turn}"))
            rows = {row.path: row.vector for row in store.get([row.id for row in store.scan()])}
            return np.stack([rows[str(path)] for path in paths])

        def encoded(_: int) -> Vectors:
            return theirs.encode([Image.open(path) for path in paths], normalize_embeddings=True)

        model.encode_images(paths[:4])
        theirs.encode([Image.open(path) for path in paths[:4]])
        sides: dict[str, Callable[[int], Vectors]] = {
            "unicross index": ours,
            "sentence-transformers": encoded,
        }
        speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for turn in range(arguments.turns):
            vectors = []
            for name, side in sides.items():
                clock, processor = time.perf_counter(), time.process_time()
                vectors.append(side(turn))
                spent = time.perf_counter() - clock, time.process_time() - processor
                speeds[name].append((arguments.pictures / spent[0], arguments.pictures / spent[1]))
            print(f"largest difference of a number: {np.abs(vectors[0] - vectors[1]).max():.1e}")
        for number, kind in enumerate(("by the clock", "by processor time")):
            for name, values in speeds.items():
                shown = ", ".join(f"{value[number]:.2f}" for value in values)
                print(f"| {name}, pictures/s {kind} | {shown} |")
            ratios = [a[number] / b[number] for a, b in zip(*speeds.values(), strict=True)]
            shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| ratio {kind} | {shown}; median {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
