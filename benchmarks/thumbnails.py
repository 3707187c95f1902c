"""What thumbnails cost while indexing: `index` with and without them, in turns in one process.

    python benchmarks/thumbnails.py PAIR JPEG_FOLDER [--pictures 500] [--side 512] [--turns 3] [--enlarge 1]

Each turn indexes the same pictures into a new store without thumbnails, then into one with them, and then
gives the first store its thumbnails. `--enlarge 25` makes the pictures 25 times as wide and high before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", type=Path)
    parser.add_argument("jpegs", type=Path)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--enlarge", type=int, default=1)
    arguments = parser.parse_args()

    from unicross.model import TwoTower
    from unicross.store import StoreInfo, open_store
    from unicross.store.archive import archive_of
    from unicross.store.index import index

    model = TwoTower.load(arguments.pair, "cpu")
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=model.dim)
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as temporary:
        home = Path(temporary)
        photos = home / "photos"
        photos.mkdir()
        for path in sorted(arguments.jpegs.glob("*.jpg"))[: arguments.pictures]:
            with Image.open(path) as image:
                size = image.width * arguments.enlarge, image.height * arguments.enlarge
                image.resize(size, Image.Resampling.BICUBIC).save(photos / path.name, quality=90)

        def seconds(name: str, side: int | None) -> float:
            """Processor time of a run."""
            store = open_store(str(home / name), info)
            started = time.process_time()
            index(model, photos, store, archive=archive_of(store.address), thumbnails=side)
            took = time.process_time() - started
            about = store.thumbnails.about() if store.thumbnails is not None else None
            store.close()
            print(f"{name}, thumbnails of {side}: {took:.2f} s, {about}", flush=True)
            return took

        seconds("warm", None)
        shares = []
        for turn in range(arguments.turns):
            without = seconds(f"without-{turn}", None)
            shares.append(
                (
                    seconds(f"with-{turn}", arguments.side) / without,
                    seconds(f"without-{turn}", arguments.side) / without,
                )
            )
        print("with / without, and filling gaps / without:", np.round(shares, 3).tolist())
        print("medians:", np.round(np.median(shares, axis=0), 3).tolist())


if __name__ == "__main__":
    main()
