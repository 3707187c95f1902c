"""A model as a folder that `SentenceTransformer(...)` loads, for pictures and texts alike.

A pair of one family (CLIP, SigLIP, ...) is one module of the library. Other towers are two routes of its
`Router`, by what is encoded: the encoder, its pooling and its head. Nothing but the library's own modules is
needed.
"""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import MODEL_MAPPING

from unicross.errors import CheckpointError
from unicross.export.huggingface import (
    cpu_weights,
    family_of,
    picture_processor,
    text_tokenizer,
    write_huggingface,
)
from unicross.model import TwoTower
from unicross.model.routes import ROUTER, ROUTER_FILE, START, TRANSFORMER_FILE
from unicross.model.tower import Tower

MODULES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Router": "sentence_transformers.base.modules.router.Router",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
}
"""The library's modules by their short names."""
POOLINGS = {"cls": "cls", "mean": "mean", "last": "lasttoken"}
"""Our poolings by the library's names."""
FORMAT = {"format": "pt"}


def write_sentence_transformers(model: TwoTower, folder: Path) -> None:
    """Fill a folder. Raises CheckpointError for towers that the library's modules cannot hold."""
    if family_of(model) is None:
        first = ROUTER
        _write_routes(model, folder)
    else:
        first = "Transformer"
        write_huggingface(model, folder)
        features = {name: _output(f"get_{name}_features", "pooler_output") for name in ("text", "image")}
        _write_json(folder / TRANSFORMER_FILE, _transformer(model, features, "sentence_embedding"))
    (folder / "1_Normalize").mkdir()
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": MODULES[first]},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": MODULES["Normalize"]},
    ]
    _write_json(folder / "modules.json", modules)
    prompts = {"query": model.text_rules.prefix} if model.text_rules.prefix else {}
    settings = {
        "model_type": "SentenceTransformer",
        "similarity_fn_name": "cosine",
        "prompts": prompts,
        "default_prompt_name": None,
    }
    _write_json(folder / "config_sentence_transformers.json", settings)


def _write_routes(model: TwoTower, folder: Path) -> None:
    """The two towers, each with its pooling and head in folders of their own."""
    routes = {name: _write_route(name, model, folder) for name in ("image", "text")}
    start = {"log_scale": model.scale.log().item(), "bias": None if model.bias is None else model.bias.item()}
    content = {
        "types": {place: MODULES[place.split("_")[-1]] for route in routes.values() for place in route},
        "structure": routes,
        "parameters": {
            "default_route": "text",
            "allow_empty_key": True,
            "route_mappings": {str((None, name)): name for name in routes},
        },
        START: start,
    }
    _write_json(folder / ROUTER_FILE, content)


def _write_route(name: str, model: TwoTower, folder: Path) -> list[str]:
    """Write a tower; returns the folders of its modules, in their order."""
    tower: Tower = getattr(model, name)
    pooling, head = _pooling_and_head(name, model)
    kinds = ["Transformer", *(["Pooling"] if pooling else []), *(["Dense"] if head is not None else [])]
    places = [f"{name}_{number}_{kind}" for number, kind in enumerate(kinds)]
    folders = {kind: folder / place for kind, place in zip(kinds, places, strict=True)}
    for place in folders.values():
        place.mkdir()
    _write_encoder(name, model, folders["Transformer"])
    field = "pooler_output" if tower.pool == "pooler" else "last_hidden_state"
    made = "token_embeddings" if pooling else "sentence_embedding"
    settings = _transformer(model, {name: _output("forward", field)}, made)
    _write_json(folders["Transformer"] / TRANSFORMER_FILE, settings | _without_pooler(tower))
    if pooling:
        _write_json(folders["Pooling"] / "config.json", pooling)
    if head is not None:
        _write_head(head, folders["Dense"])
    return places


def _write_encoder(name: str, model: TwoTower, folder: Path) -> None:
    tower: Tower = getattr(model, name)
    kind, config = type(tower.backbone), tower.backbone.config
    if type(config) not in MODEL_MAPPING:
        raise CheckpointError(
            f"transformers loads no {config.model_type!r} without the other half of its pair, so it cannot "
            "be a route of sentence-transformers: write it --to onnx"
        )
    encoder = kind(config, **_without_pooler(tower).get("model_kwargs", {})).float()
    encoder.load_state_dict(cpu_weights(tower.backbone), strict=False)  # a pooler that is not read is missing
    encoder.save_pretrained(folder)
    processor = text_tokenizer(model) if name == "text" else picture_processor(model.picture_rules)
    processor.save_pretrained(folder)


def _without_pooler(tower: Tower) -> dict[str, dict[str, bool]]:
    """The settings by which transformers makes no pooler, and no remark on its random weights, where none is
    read."""
    can = "add_pooling_layer" in signature(type(tower.backbone).__init__).parameters
    return {"model_kwargs": {"add_pooling_layer": False}} if can and tower.pool != "pooler" else {}


def _pooling_and_head(name: str, model: TwoTower) -> tuple[dict[str, Any] | None, nn.Linear | None]:
    """The settings of a tower's Pooling, and the layer after it; None for none.

    The library's mean is one of all tokens, and ours of an image tower one of its patches. Of N patches after
    one class token c it is (N + 1) / N times theirs, less c / N, so both are pooled and the layer subtracts.
    """
    tower: Tower = getattr(model, name)
    head = tower.cross if isinstance(tower.cross, nn.Linear) else None
    if tower.pool == "pooler":
        return _of_map(name, model), head
    width = tower.backbone.config.hidden_size
    if name == "text" or tower.pool == "cls" or tower.prefix == 0:
        return {"embedding_dimension": width, "pooling_mode": POOLINGS[tower.pool]}, head
    if tower.prefix != 1:
        raise CheckpointError(
            f"the image tower ({tower.backbone.config.model_type}) takes the mean of its patches and has "
            f"{tower.prefix} tokens before them, which no pooling of sentence-transformers leaves out: write "
            "it --to onnx, or train with model.image_pool=cls"
        )
    patches = (model.picture_rules.side // tower.patch) ** 2
    weight = torch.eye(width) if head is None else head.weight.detach().cpu()
    both = nn.Linear(2 * width, len(weight), bias=head is not None and head.bias is not None)
    both.weight = nn.Parameter(torch.cat([-weight / patches, weight * (patches + 1) / patches], dim=1))
    if head is not None and head.bias is not None:
        both.bias = head.bias
    return {"embedding_dimension": width, "pooling_mode": ["cls", "mean"]}, both


@torch.no_grad()
def _of_map(name: str, model: TwoTower) -> dict[str, Any] | None:
    """The settings of the Pooling for towers whose pooled output is a picture of one pixel, as ResNet's."""
    if name == "text":
        return None
    side = model.picture_rules.side
    whole = model.image.backbone(
        pixel_values=torch.zeros(1, 3, side, side, device=model.device)
    ).pooler_output
    return {"embedding_dimension": whole.shape[1], "pooling_mode": "mean"} if whole.ndim == 4 else None


def _write_head(head: nn.Linear, folder: Path) -> None:
    settings = {
        "in_features": head.in_features,
        "out_features": head.out_features,
        "bias": head.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write_json(folder / "config.json", settings)
    weights: dict[str, Tensor] = {f"linear.{name}": tensor for name, tensor in cpu_weights(head).items()}
    save_file(weights, folder / "model.safetensors", FORMAT)


def _output(method: str, field: str) -> dict[str, str]:
    """What of an encoder makes the vectors of a modality."""
    return {"method": method, "method_output_name": field}


def _transformer(model: TwoTower, outputs: dict[str, dict[str, str]], name: str) -> dict[str, Any]:
    """The settings of a Transformer; texts that the tower sees with their padding get all of it."""
    length = model.text_rules.pad_to
    padded = {"text": {"padding": "max_length", "max_length": length, "truncation": True}}
    return {
        "transformer_task": "feature-extraction",
        "modality_config": outputs,
        "module_output_name": name,
        "processing_kwargs": {} if length is None else padded,
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
