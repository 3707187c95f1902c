"""What a model's towers cost on this CPU by torch and by onnxruntime, all sides in turn.

    unicross export MODEL OUT --to onnx --int8 [data.root=DIR]
    python benchmarks/inference.py MODEL OUT [--turns 5] [--threads 1]

Pictures pass as decoded squares, texts as words; one text at a time is what a query costs a server.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from unicross.embed import Encoder
from unicross.export.onnx import INT8, OnnxTowers
from unicross.model import TwoTower

CAPTION = "two dogs play with a red ball in the snow"


@contextmanager
def precision(bf16: bool) -> Iterator[None]:
    """Let the model believe that the processor multiplies bf16 natively, or not."""
    with patch.object(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16}):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=32, help="that pass together")
    parser.add_argument("--texts", type=int, default=64, help="that pass together")
    parser.add_argument("--queries", type=int, default=20, help="single texts a turn")
    parser.add_argument("--without-bf16", action="store_true", help="where its emulation would take too long")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = TwoTower.load(arguments.model, "cpu")
    sides: dict[str, tuple[Encoder, bool]] = {
        "torch fp32": (model, False),
        "torch bf16": (model, True),
        "onnxruntime fp32": (OnnxTowers(model, arguments.folder), False),
        "onnxruntime int8": (OnnxTowers(model, arguments.folder, INT8), False),
    }
    if arguments.without_bf16:
        del sides["torch bf16"]
    side = model.picture_rules.side
    noise = np.random.default_rng(0)
    squares = noise.integers(0, 256, (arguments.pictures, side, side, 3), dtype=np.uint8)
    texts = [CAPTION] * arguments.texts
    work: dict[str, Callable[[Encoder], object]] = {
        "pictures, s": lambda encoder: encoder.encode_pixels(squares),
        "texts, s": lambda encoder: encoder.encode_texts(texts),
        "one text, ms": lambda encoder: [encoder.encode_texts([CAPTION]) for _ in range(arguments.queries)],
    }
    seconds: dict[str, dict[str, list[float]]] = {name: {s: [] for s in sides} for name in work}
    for turn in range(arguments.turns + 1):
        for name, do in work.items():
            for label, (encoder, bf16) in sides.items():
                with precision(bf16):
                    started = time.process_time()  # of this process: the machine may be shared
                    do(encoder)
                    if turn:  # the first one warms up
                        seconds[name][label].append(time.process_time() - started)
    for name, by_side in seconds.items():
        unit = 1000 / arguments.queries if name.endswith("ms") else 1
        first = statistics.median(by_side["torch fp32"])
        for label, values in by_side.items():
            median, best = statistics.median(values), min(values)
            print(f"| {name} | {label} | {median * unit:.3g} | {best * unit:.3g} | {first / median:.2f} |")


if __name__ == "__main__":
    main()
