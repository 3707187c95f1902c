"""Where pretrained pairs are read from: folders and hub names of transformers, sentence-transformers,
open_clip."""

from __future__ import annotations

import json

from transformers import PreTrainedConfig

from unicross.errors import CheckpointError
from unicross.model.hub import find_file, first_line, read_json, require_source, require_weights
from unicross.model.open_clip import load_open_clip
from unicross.model.pairs import Pair, pair_of
from unicross.model.processors import picture_rules
from unicross.model.routes import ROUTER, load_routes, module_folder
from unicross.model.tokenizer import load_tokenizer
from unicross.model.weights import load, model_class, read_config
from unicross.reading import read_text


def is_pair(config: PreTrainedConfig) -> bool:
    """Whether a configuration is of a model with features of pictures and of texts."""
    kind = model_class(config)
    return hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")


def load_pair(name: str) -> Pair:
    """A pair from a Hugging Face, sentence-transformers or open_clip folder, or a hub name.

    Raises CheckpointError where it is none, cannot be read, or does not fit.
    """
    require_source(name)
    modules = _modules(name)
    if modules and modules[0] == (ROUTER, ""):
        _check_modules(name, modules)
        return load_routes(name)
    inner = modules[0][1] if modules else ""
    source = (inner and module_folder(name, inner)) or name  # a first module may be none of transformers'
    if source != name:
        require_weights(name, inner, source)
    if find_file(source, "open_clip_config.json") and not _has_model_type(source):
        return load_open_clip(source)
    config = read_config(source)
    if not is_pair(config):
        raise CheckpointError(
            f"{name}: model_type {config.model_type!r} is no pair of an image and a text tower: give it as "
            "model.image or model.text, or take a pair (CLIP, SigLIP, ...)"
        )
    _check_modules(name, modules)
    model = load(source, config).eval()
    return pair_of(name, model, load_tokenizer(source), picture_rules(source), pad_left=_pads_left(source))


def _pads_left(source: str) -> bool:
    """On which side the tokenizer's own file wants padding; right where it does not say."""
    path = find_file(source, "tokenizer_config.json")
    return path is not None and read_json(path).get("padding_side") == "left"


def _has_model_type(source: str) -> bool:
    path = find_file(source, "config.json")
    return path is not None and "model_type" in read_json(path)


def _modules(name: str) -> list[tuple[str, str]]:
    """Kind and folder of each module of a sentence-transformers model; none where it is no such model."""
    path = find_file(name, "modules.json")
    if path is None:
        return []
    try:
        modules = json.loads(read_text(path))
        return [(module["type"].rsplit(".", 1)[-1], module["path"]) for module in modules]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {first_line(error)}: fetch it again") from error


def _check_modules(name: str, modules: list[tuple[str, str]]) -> None:
    """Raise CheckpointError where more than a pair makes the vectors of a sentence-transformers model."""
    if more := [kind for kind, _ in modules[1:] if kind != "Normalize"]:
        raise CheckpointError(
            f"{name}: this sentence-transformers model changes a pair's vectors ({', '.join(more)}), which "
            "is not supported: take one of a pair alone"
        )
