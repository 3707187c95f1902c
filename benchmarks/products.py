"""Matrix products of CLIP ViT-B/32's towers by torch and by onnxruntime, in one thread, all sides in turn.

    python benchmarks/products.py [--turns 5]

These products are nearly all of what a tower costs on a CPU without instructions for bf16. Milliseconds are
the processor's time of this process, as the machine may be shared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.nn import functional as F

SHAPES = {
    "32 pictures, up": (1600, 768, 3072, 3),
    "32 pictures, out": (1600, 768, 768, 6),
    "one text of 12 tokens, up": (12, 512, 2048, 200),
}
"""Rows, inputs, outputs, and how often it is done a turn."""


def sessions(weight: np.ndarray, folder: Path) -> list[onnxruntime.InferenceSession]:
    """The product with a weight [K, N], in 32 and in 8 bits as `unicross export --int8` makes it."""
    inputs, outputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(weight, "w")],
    )
    whole, small = folder / "whole.onnx", folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), whole)
    quantize_dynamic(whole, small, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return [onnxruntime.InferenceSession(path, options) for path in (whole, small)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for name, (rows, inputs, outputs, repeats) in SHAPES.items():
        weight = rng.normal(0, 0.02, (inputs, outputs)).astype(np.float32)
        x = rng.normal(size=(rows, inputs)).astype(np.float32)
        xt, wt = torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(weight.T))
        with tempfile.TemporaryDirectory() as folder:
            whole, small = sessions(weight, Path(folder))
        sides = {
            "torch fp32": lambda xt=xt, wt=wt: F.linear(xt, wt),
            "onnxruntime fp32": lambda x=x, session=whole: session.run(None, {"x": x}),
            "onnxruntime int8": lambda x=x, session=small: session.run(None, {"x": x}),
        }
        spent: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(turns):
            for side, product in sides.items():
                started = time.process_time()
                for _ in range(repeats):
                    product()
                if turn:  # the first one warms up
                    spent[side].append((time.process_time() - started) / repeats)
        for side, values in spent.items():
            median = statistics.median(values)
            speed = 2e-9 * rows * inputs * outputs / median
            print(f"| {name} | {side} | {1000 * median:.2f} ms | {speed:.0f} GFLOP/s |")


if __name__ == "__main__":
    main()
