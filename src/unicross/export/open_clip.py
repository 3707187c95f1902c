"""A model of CLIP's or SigLIP's shape as an open_clip folder: the names of transformers turned back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, PreTrainedModel, SiglipModel

from unicross.data.preparation import ExactResize
from unicross.errors import CheckpointError
from unicross.export.huggingface import as_pair, write_processors
from unicross.model import TwoTower
from unicross.model.open_clip import CONFIG, FILES
from unicross.model.open_clip_siglip import EXACT, TANH, timm_name, to_open_clip

RENAMED = (
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"\.layer_norm1\.", ".ln_1."),
    (r"\.layer_norm2\.", ".ln_2."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)
PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
THIS_FOLDER = "."
"""Where the tokenizer is. open_clip looks into the folder itself, but for one on the hub by the name here."""
HEAD_WIDTH = 64
"""Of open_clip's vision towers where they do not say."""


def write_open_clip(model: TwoTower, folder: Path) -> None:
    """Fill a folder. Raises CheckpointError for a model that is no CLIP and no SigLIP, or of no shape that
    open_clip's configuration can say."""
    pair = as_pair(model)
    model_cfg, weights = _siglip(pair) if isinstance(pair, SiglipModel) else _clip(pair)
    config = {"model_cfg": model_cfg, "preprocess_cfg": _preprocess_cfg(model)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(weights, folder / FILES[0])
    write_processors(model, folder)


def _clip(pair: PreTrainedModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not isinstance(pair, CLIPModel):
        raise CheckpointError(
            f"an open_clip folder holds pairs of CLIP's and SigLIP's shape, and this is a "
            f"{type(pair).__name__}: export it --to hf"
        )
    return _model_cfg(pair), renamed(pair.state_dict())


def _siglip(pair: SiglipModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    vision, text = pair.config.vision_config, pair.config.text_config
    name = timm_name(vision)
    if name is None or text.hidden_act not in (EXACT, TANH):
        raise CheckpointError(
            "no ViT of timm computes what this SigLIP does, and open_clip knows its image towers by timm's "
            f"names only ({vision.num_hidden_layers} layers of width {vision.hidden_size}, patches of "
            f"{vision.patch_size} in pictures of {vision.image_size} px, activation {vision.hidden_act}): "
            "export it --to hf"
        )
    model_cfg = {
        "embed_dim": text.projection_size,
        "init_logit_bias": pair.logit_bias.item(),
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": name,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "hf_tokenizer_name": THIS_FOLDER,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": (text.intermediate_size + 0.5) / text.hidden_size,  # what is cut to an integer there
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": text.layer_norm_eps},
            "act_kwargs": {"approximate": "tanh" if text.hidden_act == TANH else "none"},
        },
    }
    return model_cfg, to_open_clip(pair.state_dict())


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' CLIP by open_clip's names."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith("position_ids"):
            continue
        if name in PROJECTIONS:
            result[PROJECTIONS[name]] = tensor.T.contiguous()
            continue
        if ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        new = name
        for pattern, replacement in RENAMED:
            new = re.sub(pattern, replacement, new)
        if ".self_attn.q_proj." in name:
            rows = [weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            result[new.replace(".self_attn.q_proj.", ".attn.in_proj_")] = torch.cat(rows)
        else:
            result[new] = tensor.contiguous()
    return result


def _model_cfg(pair: CLIPModel) -> dict[str, Any]:
    vision, text = pair.config.vision_config, pair.config.text_config
    width, kinds = vision.hidden_size // vision.num_attention_heads, {vision.hidden_act, text.hidden_act}
    shapes = (
        text.intermediate_size == 4 * text.hidden_size,
        len(kinds) == 1 and kinds <= {"gelu", "quick_gelu"},
        text.eos_token_id in (2, text.vocab_size - 1),  # open_clip takes the greatest id for the end
    )
    if not all(shapes):
        raise CheckpointError(
            "this CLIP has a text tower of a shape that open_clip's configuration cannot say"
        )
    vision_cfg = {
        "image_size": vision.image_size,
        "layers": vision.num_hidden_layers,
        "width": vision.hidden_size,
        "patch_size": vision.patch_size,
    }
    if width != HEAD_WIDTH:
        vision_cfg["head_width"] = width
    if vision.intermediate_size != 4 * vision.hidden_size:
        vision_cfg["mlp_ratio"] = vision.intermediate_size / vision.hidden_size
    return {
        "embed_dim": pair.config.projection_dim,
        "quick_gelu": kinds == {"quick_gelu"},
        "vision_cfg": vision_cfg,
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
        },
    }


def _preprocess_cfg(model: TwoTower) -> dict[str, Any]:
    rules = model.picture_rules
    keeps = (
        rules.resize.keeps_proportions if isinstance(rules.resize, ExactResize) else rules.resize == "crop"
    )
    if isinstance(rules.resize, ExactResize) and rules.resize.first != rules.side:
        raise CheckpointError(
            f"its pictures are cut out of larger ones ({rules.resize}), which an open_clip folder cannot "
            f"say: export "
            "it --to hf"
        )
    return {
        "size": rules.side,
        "mode": "RGB",
        "mean": list(rules.mean),
        "std": list(rules.std),
        "interpolation": rules.resize.filter if isinstance(rules.resize, ExactResize) else "bicubic",
        "resize_mode": "shortest" if keeps else "squash",
    }
