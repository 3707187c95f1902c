"""Pairs that sentence-transformers holds as two routes of its `Router`: an encoder each, its pooling, its
head.

Read is what `export/sentence_transformers.py` writes, and what the library makes of it when it saves it
again; a route with other modules is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

from unicross.config import Pooling
from unicross.data.preparation import TextRules
from unicross.errors import CheckpointError
from unicross.model.hub import find_file, read_json, require_weights
from unicross.model.pairs import SEES_PADDING, Pair, most_tokens, pop_head
from unicross.model.pooling import fit_image, fit_text
from unicross.model.processors import picture_rules
from unicross.model.tokenizer import check_vocabulary, load_tokenizer
from unicross.model.weights import load, read_config

ROUTER, ROUTER_FILE, TRANSFORMER_FILE = "Router", "router_config.json", "sentence_bert_config.json"
START = "unicross"
"""The key of ROUTER_FILE under which temperature and bias lie, which the library has no place for."""
FILES = (
    *("config.json", "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json"),
    TRANSFORMER_FILE,
    *("processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
)
"""What is read of a module that lies in a folder of a sentence-transformers model."""
POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
"""Our poolings by the library's names."""
START_SCALE = math.log(1 / 0.07)
"""Of a model that the library saved again: CLIP's before its training."""


@dataclass(frozen=True)
class Route:
    """What makes the vectors of one modality."""

    folder: str
    """Of the encoder, with its processor."""
    encoder: PreTrainedModel
    pool: Pooling
    head: nn.Module


def module_folder(name: str, inner: str) -> str | None:
    """The folder of a module within a model, fetched where the model is on the hub; None where none is
    there."""
    config = find_file(name, f"{inner}/config.json")
    if config is None:
        return None
    for file in FILES:
        find_file(name, f"{inner}/{file}")
    return str(config.parent)


def load_routes(name: str) -> Pair:
    """A pair from the folder or hub name of a sentence-transformers model that begins with a `Router`.

    Raises CheckpointError where its routes are no two towers, or cannot be read.
    """
    path = find_file(name, ROUTER_FILE)
    if path is None:
        raise CheckpointError(f"{name}: it has no {ROUTER_FILE}, which says what its routes are")
    settings = read_json(path)
    try:
        image, text = (_route(name, settings, modality) for modality in ("image", "text"))
        start = settings.get(START, {})
        log_scale, bias = float(start.get("log_scale", START_SCALE)), start.get("bias")
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name}: its routes cannot be read: {reason}: fetch it again") from error
    pictures, tokenizer = picture_rules(image.folder), load_tokenizer(text.folder)
    check_vocabulary(name, tokenizer, text.encoder)
    limit = most_tokens(text.encoder.config, tokenizer)
    pads = text.encoder.config.model_type in SEES_PADDING
    pair = Pair(
        image=image.encoder,
        text=text.encoder,
        image_pool=image.pool,
        text_pool=text.pool,
        image_head=image.head,
        text_head=text.head,
        log_scale=log_scale,
        bias=None if bias is None else float(bias),
        tokenizer=tokenizer,
        max_tokens=limit,
        pictures=pictures,
        texts=TextRules(pad_to=limit if pads else None, pad_left=pads and tokenizer.padding_side == "left"),
    )
    _check_widths(name, pair)
    return pair


def _route(name: str, settings: dict[str, Any], modality: str) -> Route:
    places = settings["structure"].get(modality)
    if places is None:
        raise CheckpointError(
            f"{name}: its routes are {', '.join(settings['structure'])}, and a pair has one for image and "
            "one for text"
        )
    modules = {settings["types"][place].rsplit(".", 1)[-1]: place for place in places}
    kinds = [kind for kind in modules if kind != "Normalize"]
    whole = ["Transformer", "Pooling", "Dense"]
    if (
        len(modules) != len(places)
        or kinds != [kind for kind in whole if kind in kinds]
        or kinds[0] != whole[0]
    ):
        raise CheckpointError(
            f"{name}: its route of {modality} is {', '.join(modules)}, and only a Transformer with a Pooling "
            "and a Dense after it is supported"
        )
    folders = {kind: module_folder(name, modules[kind]) for kind in kinds}
    if lost := [modules[kind] for kind, folder in folders.items() if folder is None]:
        raise CheckpointError(f"{name}: {lost[0]} has no config.json: fetch it again")
    source = str(folders["Transformer"])
    require_weights(name, modules["Transformer"], source)
    encoder = load(source, read_config(source)).eval()
    if pop_head(encoder) is not None:
        raise CheckpointError(
            f"{name}: its encoder of {modality} has a head of its own, which is not supported in a route"
        )
    head: nn.Module = _head(name, Path(str(folders["Dense"]))) if "Dense" in folders else nn.Identity()
    transformer = read_json(Path(source) / TRANSFORMER_FILE)
    if transformer.get("do_lower_case"):
        raise CheckpointError(f"{name}: do_lower_case of {TRANSFORMER_FILE} is not supported")
    pooling = read_json(Path(str(folders["Pooling"])) / "config.json") if "Pooling" in folders else {}
    match _output(transformer, modality), pooling.get("pooling_mode"):
        case "pooler_output", None | "mean":  # a picture of one pixel is its own mean
            return Route(source, encoder, "pooler", head)
        case "last_hidden_state", ["cls", "mean"] if modality == "image":
            return Route(source, encoder, "mean", _of_patches(name, encoder, head))
        case "last_hidden_state", "mean" if modality == "image" and _before_patches(encoder) != 0:
            raise CheckpointError(
                f"{name}: its pictures are pooled by the mean of all tokens, which is not supported where "
                "some are none of patches"
            )
        case "last_hidden_state", str(mode) if mode in POOLINGS:
            return Route(source, encoder, POOLINGS[mode], head)
        case field, mode:
            raise CheckpointError(
                f"{name}: its route of {modality} takes {mode} of {field}, which is not supported"
            )


def _before_patches(encoder: PreTrainedModel) -> int | None:
    """How many tokens of an image encoder are none of patches."""
    return fit_image(encoder, "mean", encoder.config.image_size).prefix


def _output(transformer: dict[str, Any], modality: str) -> str | None:
    """Which output of its encoder a Transformer takes; None where it is not of the plain forward."""
    taken = transformer["modality_config"][modality]
    field = taken["method_output_name"]
    return field if taken["method"] == "forward" and isinstance(field, str) else None


def _head(name: str, folder: Path) -> nn.Linear:
    """A Dense as a linear layer."""
    config = read_json(folder / "config.json")
    activation = config["activation_function"].rsplit(".", 1)[-1]
    if activation != "Identity" or config.get("use_residual"):
        raise CheckpointError(
            f"{name}: its {folder.name} is not linear ({activation}), which is not supported"
        )
    head = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    weights = load_file(folder / "model.safetensors")
    head.load_state_dict({key.removeprefix("linear."): tensor for key, tensor in weights.items()})
    return head


@torch.no_grad()
def _of_patches(name: str, encoder: PreTrainedModel, both: nn.Module) -> nn.Linear:
    """The head of the mean of the patches, from the layer that makes it of class token and mean of all."""
    config = encoder.config
    width, patches = config.hidden_size, (config.image_size // config.patch_size) ** 2
    refusal = CheckpointError(
        f"{name}: its pictures are pooled by class token and mean together, which is not supported"
    )
    if not isinstance(both, nn.Linear) or both.in_features != 2 * width or _before_patches(encoder) != 1:
        raise refusal
    of_class, of_all = both.weight.split(width, dim=1)
    if not torch.allclose(of_class, -of_all / (patches + 1), rtol=1e-4, atol=1e-6):
        raise refusal
    head = nn.Linear(width, both.out_features, bias=False)
    head.weight.copy_(of_all * patches / (patches + 1))
    head.bias = both.bias
    return head


def _check_widths(name: str, pair: Pair) -> None:
    """Raise CheckpointError where a head does not fit its encoder, or the two vectors differ in length."""
    widths = (
        fit_image(pair.image, pair.image_pool, pair.pictures.side).width,
        fit_text(pair.text, pair.text_pool, pair.max_tokens).width,
    )
    dims = []
    for width, head in zip(widths, (pair.image_head, pair.text_head), strict=True):
        taken = head.in_features if isinstance(head, nn.Linear) else width
        if taken != width:
            raise CheckpointError(f"{name}: a head takes {taken} numbers, and its encoder makes {width}")
        dims.append(head.out_features if isinstance(head, nn.Linear) else width)
    if dims[0] != dims[1]:
        raise CheckpointError(
            f"{name}: its pictures have vectors of {dims[0]} numbers, its texts of {dims[1]}: they cannot be "
            "compared"
        )
