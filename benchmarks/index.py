"""Indexing speed: `index` against the bare forward pass and sentence-transformers, same ViT, same pictures.

    python benchmarks/index.py VIT_FOLDER [--pictures 2000] [--side 224]

The pictures are 512×384 JPEG files. The bare forward pass gets decoded squares from memory, so it is the
bound; `index` reads, decodes, embeds and writes to a LanceDB store with kept Parquet.
sentence-transformers runs its own `encode` with the same weights and Hugging Face's image processor.
"""

from __future__ import annotations

import argparse
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
    arguments = parser.parse_args()

    from unicross.config import ModelConfig
    from unicross.data.images import load_square
    from unicross.model import TwoTower
    from unicross.store import StoreInfo, open_store
    from unicross.store.archive import EmbeddingArchive
    from unicross.store.index import index

    text = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = ModelConfig(image=str(arguments.vit), text=text, dim=256, image_size=arguments.side)
    model = TwoTower.create(config, max_tokens=16, captions=["a picture"]).eval()
    count = arguments.pictures
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
