"""Trained models in the formats of other libraries: Hugging Face, ONNX, sentence-transformers,
open_clip.

Each target is loaded by its own library and gives the same embeddings; what a format cannot hold is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from unicross.data.items import Item
from unicross.data.preparation import PatchCanvas
from unicross.errors import CheckpointError
from unicross.export.card import write_card
from unicross.export.huggingface import write_huggingface
from unicross.export.onnx import quantise, write_onnx
from unicross.export.open_clip import write_open_clip
from unicross.export.sentence_transformers import write_sentence_transformers
from unicross.files import folder_beside
from unicross.model import TwoTower
from unicross.model.weights import quiet_transformers

TARGETS: dict[str, Callable[[TwoTower, Path], None]] = {
    "hf": write_huggingface,
    "onnx": write_onnx,
    "sentence-transformers": write_sentence_transformers,
    "open_clip": write_open_clip,
}
"""By name: what fills a folder with a model, or raises CheckpointError where the format cannot hold it."""

ONE_SIZE = frozenset({"onnx", "sentence-transformers"})
"""Formats for pictures of one size."""


def export(
    model: TwoTower, source: Path, out: Path, target: str, *, int8_on: Sequence[Item] | None = None
) -> None:
    """Write a model and its card into a new folder, whole or not at all.

    Args:
        model: in eval mode.
        source: the run, checkpoint or pair that it is of, for the card.
        out: must not exist.
        target: a name in TARGETS.
        int8_on: with `onnx`, write the graphs in 8 bits too, and measure on these items what that costs.

    Raises CheckpointError where the format cannot hold the model or the folder cannot be written.
    """
    if out.exists():
        raise CheckpointError(f"{out}: is there already: give a new folder")
    if target in ONE_SIZE and isinstance(model.picture_rules.resize, PatchCanvas):
        raise CheckpointError(
            f"pairs that see pictures in their own proportions (NaFlex) are not written for {target}: export "
            "it --to hf"
        )
    if target != "onnx":
        _check_plain(model, source, target)
    try:
        with folder_beside(out) as folder, quiet_transformers():
            TARGETS[target](model, folder)
            int8 = None if int8_on is None else quantise(model, folder, int8_on)
            write_card(model, source, folder, target, int8)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error.strerror or error}") from error


def _check_plain(model: TwoTower, source: Path, target: str) -> None:
    """Raise CheckpointError for a model with parts that only a graph of all of it holds."""
    parts = {
        "sees the last layers of its image tower": ("model.image_pool=cls", model.image.pool == "layers"),
        "corrects its hubs": ("train.correct_hubness=false", model.hubness is not None),
    }
    found = {what: instead for what, (instead, has) in parts.items() if has}
    if found:
        raise CheckpointError(
            f"{source}: {' and '.join(found)}, which --to {target} cannot hold: export it --to onnx, or "
            f"train it with {' '.join(found.values())}"
        )
