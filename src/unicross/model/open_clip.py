"""open_clip folders as pairs: models of CLIP's and SigLIP's shape, renamed onto transformers' classes.

Both libraries compute the same of the same weights; only names differ, and query, key and value lie in one
matrix in open_clip. Its other kinds (ResNet, other ViTs of timm, CoCa, towers of Hugging Face) are refused.
SigLIP's names are in `open_clip_siglip`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedModel, SiglipModel

from unicross.data.preparation import ExactResize, PictureRules
from unicross.errors import CheckpointError
from unicross.model.cleaning import with_cleaning
from unicross.model.hub import find_file, first_line, read_json
from unicross.model.limits import check_config, check_fits, check_weights
from unicross.model.open_clip_siglip import (
    cleaning,
    from_open_clip,
    is_siglip,
    siglip_config,
    what_differs,
)
from unicross.model.pairs import Pair, pair_of
from unicross.model.tokenizer import load_tokenizer

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "model.safetensors")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "spiece.model"),
)
PLAIN_VISION = frozenset({"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"})
PLAIN_TEXT = frozenset({"context_length", "vocab_size", "width", "heads", "layers"})
"""What a tower of CLIP's shape says of itself; anything else makes it another."""
RENAMED = (
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^(?:text\.)?transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^(?:text\.)?token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^(?:text\.)?positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"^(?:text\.)?ln_final\.", "text_model.final_layer_norm."),
    (r"\.ln_1\.", ".layer_norm1."),
    (r"\.ln_2\.", ".layer_norm2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
"""Names in open_clip's files, and what transformers' CLIP calls the same."""
PROJECTIONS = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
    "text.text_projection": "text_projection.weight",
}
"""Kept transposed there."""


def load_open_clip(source: str) -> Pair:
    """A pair from an open_clip folder or hub name. Raises CheckpointError, also for kinds that do not map."""
    path = find_file(source, CONFIG)
    assert path is not None
    raw = read_json(path)
    model_cfg = raw.get("model_cfg", {})
    siglip = is_siglip(model_cfg)
    if strange := what_differs(model_cfg) if siglip else _strange(model_cfg):
        raise CheckpointError(
            f"{source}: an open_clip model of a kind that is not supported ({', '.join(strange)}); only ViTs "
            "of CLIP's and SigLIP's shape are. Many models have a twin for transformers on the hub: take "
            "that one"
        )
    held = _weights(source)
    for name in TOKENIZER_FILES:
        find_file(source, name)  # into the cache: transformers would ask the hub for a config.json too
    tokenizer = load_tokenizer(path.parent)
    model: PreTrainedModel
    try:
        if siglip:
            config, weights = siglip_config(model_cfg, held), from_open_clip(held)
            text = config.text_config
            tokenizer = with_cleaning(
                tokenizer, cleaning(model_cfg), text.max_position_embeddings, text.vocab_size
            )
        else:
            config, weights = _clip_config(model_cfg), _renamed(held)
        kind = SiglipModel if siglip else CLIPModel
        check_config(source, config)
        check_fits(source, lambda: kind(config), {name: tuple(t.shape) for name, t in held.items()})
        model = kind(config).eval()
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: its weights do not fit {CONFIG}: {what}") from error
    return pair_of(
        source,
        model,
        tokenizer,
        _pictures(source, raw, config.vision_config.image_size),
        pad_left=siglip and tokenizer.padding_side == "left",
    )


def _strange(model: Mapping[str, Any]) -> list[str]:
    """What in open_clip's configuration makes another model than a CLIP of it."""
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    strange = [f"vision_cfg.{key}" for key in vision if key not in PLAIN_VISION]
    strange += [f"text_cfg.{key}" for key in text if key not in PLAIN_TEXT]
    if not isinstance(vision.get("layers"), int):
        strange.append(f"vision_cfg.layers={vision.get('layers')!r}")
    return strange


def _clip_config(model: Mapping[str, Any]) -> CLIPConfig:
    vision, text = model["vision_cfg"], model["text_cfg"]
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width = vision["width"]
    return CLIPConfig(
        projection_dim=model["embed_dim"],
        vision_config={
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": width // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": text["vocab_size"],
            "bos_token_id": text["vocab_size"] - 2,
            "eos_token_id": text["vocab_size"] - 1,
            "pad_token_id": 0,
            "hidden_act": activation,
        },
    )


def _weights(source: str) -> dict[str, Tensor]:
    for name in FILES:
        if path := find_file(source, name):
            try:
                check_weights(path)
                return {name: tensor.float() for name, tensor in load_file(path).items()}
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"{path}: damaged or only partly there ({first_line(error)}): fetch it again"
                ) from error
    raise CheckpointError(
        f"{source}: it has no {' or '.join(FILES)}; pickled weights are never read, as they can run code"
    )


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in PROJECTIONS:
            result[PROJECTIONS[name]] = tensor.T.contiguous()
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".attn.in_proj_" in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                result[name.replace(".attn.in_proj_", f".self_attn.{part}_proj.")] = rows.contiguous()
        elif name not in ("attn_mask", "text.attn_mask"):
            result[name] = tensor.reshape(()) if name == "logit_scale" else tensor
    return result


def _pictures(source: str, raw: Mapping[str, Any], side: int) -> PictureRules:
    """What open_clip's own transform does: torchvision's resize and centre crop of a PIL image."""
    prepared = raw.get("preprocess_cfg", {})
    mode = prepared.get("resize_mode") or "shortest"
    filter_: Any = prepared.get("interpolation") or "bicubic"
    if mode not in ("shortest", "squash") or filter_ not in ("bicubic", "bilinear"):
        raise CheckpointError(
            f"{source}: pictures prepared by resize_mode={mode}, interpolation={filter_} are not supported"
        )
    if "mean" not in prepared or "std" not in prepared:
        raise CheckpointError(
            f"{source}: its {CONFIG} does not say with which mean and std it was trained: put them into "
            "preprocess_cfg"
        )
    resize = ExactResize(side, side, mode == "shortest", filter_, "round")
    return PictureRules(side, resize, tuple(prepared["mean"]), tuple(prepared["std"]))
