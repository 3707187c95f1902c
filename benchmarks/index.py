"""Indexing speed: `index` against the bare forward pass and sentence-transformers, same ViT, same pictures.

    python benchmarks/index.py VIT_FOLDER [--pictures 2000] [--side 224]
    python benchmarks/index.py VIT_FOLDER --shards JPEG_FOLDER [--pictures 10000] [--side 96] [--turns 3]

The pictures are 512×384 JPEG files. The bare forward pass gets decoded squares from memory, so it is the
bound; `index` reads, decodes, embeds and writes to a LanceDB store with kept Parquet.
sentence-transformers runs its own `encode` with the same weights and Hugging Face's image processor.

With --shards, the same JPEG files are indexed from a folder and from tar shards of 1,000, in turns, each time
into a new store and with the shards' own index still to be made. VIT_FOLDER may be `tiny`, random weights
that cost next to nothing, so that reading decides.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_pictures(folder: Path, count: int) -> list[Path]:
    """JPEG files of 512×384 with the detail of photographs."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((512, 384), 3)
        fine = rng.normal(0, 12, (384, 512, 1))
        pixels = np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:05}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=88)
    return paths


def shards_against_folder(model: Any, jpegs: Path, count: int, turns: int) -> None:
    """Print what a turn takes from a folder and from shards of the same files, and the ratio."""
    from unicross.store import StoreInfo, open_store
    from unicross.store.index import index

    found = sorted(jpegs.glob("*.jpg"))
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as temporary:
        home = Path(temporary)
        places = {"folder": home / "photos", "shards": home / "shards"}
        for place in places.values():
            place.mkdir()
        for start in range(0, count, 1000):
            with tarfile.open(places["shards"] / f"{start // 1000:05}.tar", "w") as tar:
                for number in range(start, min(start + 1000, count)):
                    path = places["folder"] / f"{number:05}.jpg"
                    shutil.copyfile(found[number % len(found)], path)
                    tar.add(path, path.name)
        info = StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=model.dim)
        ratios = []
        for turn in range(turns):
            seconds = {}
            for name in sorted(places, reverse=bool(turn % 2)):
                for kept in places[name].glob(".*.index"):
                    kept.unlink()
                store = open_store(f"{home}/store-{name}-{turn}", info)
                wall, processor = time.perf_counter(), time.process_time()
                report = index(model, places[name], store)
                seconds[name] = time.perf_counter() - wall, time.process_time() - processor
                assert report.added == count, report
                store.close()
            ratios.append([seconds["folder"][k] / seconds["shards"][k] for k in (0, 1)])
            print(
                f"turn {turn}: {seconds}; speed of shards / folder: {ratios[-1]} (wall, processor)",
                flush=True,
            )
        wall, processor = np.median(ratios, axis=0)
        print(f"median: {wall:.2f} by the clock, {processor:.2f} by processor time")


def timed(work: Callable[[], object], count: int) -> float:
    """Pictures a second."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def sentence_transformer(vit: Path, dim: int) -> Callable[[list[Path]], object]:
    """`encode` of a SentenceTransformer over the same image tower."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoImageProcessor, AutoModel

    class Vision(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(vit, dtype=torch.float32)
            self.processor = AutoImageProcessor.from_pretrained(vit)
            self.cross = torch.nn.Linear(self.model.config.hidden_size, dim, bias=False)

        def preprocess(self, inputs: list[Any], **_: Any) -> dict[str, Any]:
            return dict(
                self.processor([Image.open(path).convert("RGB") for path in inputs], return_tensors="pt")
            )

        tokenize = preprocess

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            hidden = self.model(pixel_values=features["pixel_values"]).last_hidden_state[:, 0]
            features["sentence_embedding"] = torch.nn.functional.normalize(self.cross(hidden), dim=-1)
            return features

    model = SentenceTransformer(modules=[Vision()], device="cpu")
    return lambda paths: model.encode([str(path) for path in paths], batch_size=64)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vit", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--shards", type=Path, help="A folder of JPEG files to index from shards as well.")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()

    from unicross.config import ModelConfig
    from unicross.data.images import load_square
    from unicross.model import TwoTower
    from unicross.store import StoreInfo, open_store
    from unicross.store.archive import EmbeddingArchive
    from unicross.store.index import index

    text = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    vit = text | {"model_type": "vit", "patch_size": 32, "intermediate_size": 64}
    image = vit if str(arguments.vit) == "tiny" else str(arguments.vit)
    config = ModelConfig(image=image, text=text, dim=256, image_size=arguments.side)
    model = TwoTower.create(config, max_tokens=16, captions=["a picture"]).eval()
    count = arguments.pictures
    if arguments.shards:
        shards_against_folder(model, arguments.shards, count, arguments.turns)
        return
    with tempfile.TemporaryDirectory(prefix="unicross-bench-") as home:
        paths = make_pictures(Path(home) / "photos", count)
        squares = np.stack([load_square(path, arguments.side, config.resize) for path in paths[:256]])
        model.encode_pixels(squares[:64])

        def bare() -> None:
            for start in range(0, count, 64):
                model.encode_pixels(squares[start % 256 :][:64])

        store = open_store(
            f"{home}/store", StoreInfo(fingerprint=model.fingerprint(), checkpoint="m", dim=model.dim)
        )
        archive = EmbeddingArchive(Path(home) / "archive")
        speeds = {
            "bare forward": timed(bare, count),
            "unicross index": timed(
                lambda: index(model, Path(home) / "photos", store, archive=archive), count
            ),
        }
        try:
            encode = sentence_transformer(arguments.vit, model.dim)
        except ImportError:
            print("sentence-transformers is not installed: left out")
        else:
            few = paths[: max(64, count // 4)]
            speeds["sentence-transformers"] = timed(lambda: encode(few), len(few))
        for name, speed in speeds.items():
            print(f"| {name} | {speed:.1f} images/s | {speed / speeds['bare forward']:.2f} |")


if __name__ == "__main__":
    main()
