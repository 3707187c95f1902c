"""A model as two ONNX graphs, which onnxruntime runs without torch; with tokenizer and picture processor.

Files and names are those of the hub's ONNX models: `onnx/vision_model.onnx` makes `image_embeds` [N, D] of
`pixel_values` [N, 3, S, S], `onnx/text_model.onnx` makes `text_embeds` [N, D] of `input_ids` and
`attention_mask` [N, L]; all are unit vectors. Graphs in 8 bits lie beside them under `_int8` names.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unicross.data.items import Item
from unicross.data.preparation import PictureRules
from unicross.embed import Vectors
from unicross.errors import CheckpointError
from unicross.evaluation import evaluate
from unicross.export.huggingface import write_processors
from unicross.model import TwoTower
from unicross.model.processors import normalised
from unicross.result import Result

if TYPE_CHECKING:
    from unicross.data.images import Pixels

FOLDER = "onnx"
IMAGES, TEXTS = "vision_model", "text_model"
INT8 = "_int8"
TOLERANCE = 1e-4
"""Of unit vectors, the graph's against the tower's."""
LARGEST = 2**31 - 2**20
"""Bytes of one ONNX file; the weights of a larger graph lie in a file of their own beside it."""
PROBE_TOKENS = 7
"""Of the texts that a graph is traced with, where texts are not padded to a length."""
MISSING = "exporting to ONNX needs more packages ({}): pip install 'unicross[onnx]'"


class _ImageGraph(nn.Module):
    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.tower, self.embed = model.image, model.embed_images

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, D]"""
        return self.embed(self.tower(pixel_values=pixel_values))


class _TextGraph(nn.Module):
    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.tower, self.embed = model.text, model.embed_texts

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[N, L], [N, L] -> [N, D]"""
        return self.embed(self.tower(input_ids=input_ids, mask=attention_mask))


class _PaddedTextGraph(_TextGraph):
    def forward(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]
        """[N, L], of which the tower sees the padding too -> [N, D]"""
        return super().forward(input_ids, torch.ones_like(input_ids))


class OnnxTowers:
    """The graphs of an exported folder as an `Encoder`; texts and pictures are prepared as its model does."""

    def __init__(self, model: TwoTower, folder: Path, suffix: str = "") -> None:
        """`suffix`: `INT8` for the graphs in 8 bits."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # what the user allows this process
        self._model = model
        self._images, self._texts = (
            onnxruntime.InferenceSession(folder / FOLDER / f"{name}{suffix}.onnx", options)
            for name in (IMAGES, TEXTS)
        )
        self._text_inputs = [node.name for node in self._texts.get_inputs()]

    @property
    def dim(self) -> int:
        return self._model.dim

    @property
    def picture_rules(self) -> PictureRules:
        return self._model.picture_rules

    def fingerprint(self) -> str:
        return self._model.fingerprint()

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """uint8 [N, S, S, 3] -> unit vectors [N, D]"""
        shown = np.stack([normalised(square, self.picture_rules) for square in pixels])
        return self.encode_values(shown)

    def encode_values(self, values: Vectors) -> Vectors:
        """Normalised pictures [N, 3, S, S] -> unit vectors [N, D]"""
        vectors: Vectors = self._images.run(None, {"pixel_values": values})[0]
        return vectors

    def encode_tokens(self, ids: Tensor, mask: Tensor) -> Vectors:
        """Token ids and their mask, both [N, L] -> unit vectors [N, D]"""
        tokens = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        vectors: Vectors = self._texts.run(None, {name: tokens[name] for name in self._text_inputs})[0]
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts -> unit vectors [N, D]"""
        return self._model.tokenized(texts).encoded(self.encode_tokens, self.dim)


def write_onnx(model: TwoTower, folder: Path) -> None:
    """Fill a folder. Raises CheckpointError where packages are missing or a tower makes no graph."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CheckpointError(MISSING.format(error)) from error
    (folder / FOLDER).mkdir()
    side, length = model.picture_rules.side, model.text_rules.pad_to
    pixels = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side)
    _write(_ImageGraph(model), (pixels,), [{0: "batch"}], folder / FOLDER / f"{IMAGES}.onnx", "image")
    vocabulary = int(model.text.backbone.config.vocab_size)
    ids = torch.arange(2 * (length or PROBE_TOKENS)).reshape(2, -1) % vocabulary
    mask = torch.ones_like(ids)
    graph: nn.Module = _TextGraph(model) if length is None else _PaddedTextGraph(model)
    inputs = (ids, mask) if length is None else (ids,)
    shape = {0: "batch", 1: "tokens"} if length is None else {0: "batch"}
    _write(graph, inputs, [shape] * len(inputs), folder / FOLDER / f"{TEXTS}.onnx", "text")
    _check_equal(model, folder)
    write_processors(model, folder)


def _write(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic_shapes: list[dict[int, str]],
    path: Path,
    modality: str,
) -> None:
    """Trace a tower on two probes and write it. Raises CheckpointError where it cannot be traced."""
    device = next(graph.parameters()).device
    names = {
        1: ["pixel_values"] if modality == "image" else ["input_ids"],
        2: ["input_ids", "attention_mask"],
    }
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                graph.eval(),
                tuple(tensor.to(device) for tensor in inputs),
                path,
                dynamo=True,
                input_names=names[len(inputs)],
                output_names=[f"{modality}_embeds"],
                dynamic_shapes=dynamic_shapes,
                external_data=size > LARGEST,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the {modality} tower cannot be written as ONNX: {reason}") from error


def _check_equal(model: TwoTower, folder: Path) -> None:
    """Raise CheckpointError unless the graphs make what the towers make, of other shapes than were traced."""
    towers, side = OnnxTowers(model, folder), model.picture_rules.side
    values = torch.linspace(1, -1, 3 * 3 * side * side).reshape(3, 3, side, side)
    texts = model.tokenized(["a cat", "a photo of two dogs in the snow", "?"]).tokens(np.arange(3))
    device = model.device
    with torch.no_grad():
        images = model.embed_images(model.image(pixel_values=values.to(device)))
        words = model.embed_texts(model.text(input_ids=texts.ids.to(device), mask=texts.mask.to(device)))
    for modality, found, wanted in (
        ("image", towers.encode_values(values.numpy()), images),
        ("text", towers.encode_tokens(texts.ids, texts.mask), words),
    ):
        worst = float(np.abs(found - wanted.cpu().numpy()).max())
        if not worst <= TOLERANCE:
            raise CheckpointError(
                f"the {modality} tower as ONNX makes other vectors, by {worst:.2g}: it cannot be exported so"
            )


def quantise(model: TwoTower, folder: Path, items: Sequence[Item]) -> tuple[Result, Result]:
    """Write the graphs in 8 bits beside those of an exported folder, and measure what that costs.

    The weights of matrix products become 8-bit integers by output channel, activations when they come
    (dynamic quantisation). Weights use 7 bits, as the sums of 8-bit products overflow on processors without
    VNNI.

    Returns:
        What the graphs find among `items` in 32 and in 8 bits.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for name in (IMAGES, TEXTS):
        source = folder / FOLDER / f"{name}.onnx"
        with _quiet():
            quantize_dynamic(
                source,
                source.with_stem(name + INT8),
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=["MatMul", "Gemm"],
                extra_options={"MatMulConstBOnly": True},
            )
    whole, small = (evaluate(OnnxTowers(model, folder, suffix), items) for suffix in ("", INT8))
    return whole, small


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and passes, which tell a user nothing."""
    before: Any = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
