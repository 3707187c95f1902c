"""Trained models in the formats of other libraries: Hugging Face, sentence-transformers, open_clip.

Each target is loaded by its own library and gives the same embeddings; what a format cannot hold is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unicross.errors import CheckpointError
from unicross.export.card import write_card
from unicross.export.huggingface import write_huggingface
from unicross.export.open_clip import write_open_clip
from unicross.export.sentence_transformers import write_sentence_transformers
from unicross.files import folder_beside
from unicross.model import TwoTower

TARGETS: dict[str, Callable[[TwoTower, Path], None]] = {
    "hf": write_huggingface,
    "sentence-transformers": write_sentence_transformers,
    "open_clip": write_open_clip,
}
"""By name: what fills a folder with a model. Raises ExportError for a model that the format cannot hold."""


def export(model: TwoTower, source: Path, out: Path, target: str) -> None:
    """Write a model and its card into a new folder, whole or not at all.

    Args:
        model: in eval mode.
        source: the run, checkpoint or pair that it is of, for the card.
        out: must not exist.
        target: a name in TARGETS.

    Raises CheckpointError where the format cannot hold the model or the folder cannot be written.
    """
    if out.exists():
        raise CheckpointError(f"{out}: is there already: give a new folder")
    try:
        with folder_beside(out) as folder:
            TARGETS[target](model, folder)
            write_card(model, source, folder, target)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error.strerror or error}") from error
