"""SigLIP as open_clip has it, a ViT of timm beside a text transformer: its sizes, and the names of its
weights in transformers' SiglipModel, in both directions.

Both libraries compute the same of the same weights. timm keeps query, key and value in one matrix, and those
of its attention pooling in two.

Letters: N patches, P side of a patch, H a tower's width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import SiglipConfig, SiglipVisionConfig

from unicross.model.cleaning import CLEANING

TANH, EXACT = "gelu_pytorch_tanh", "gelu"
VITS = {
    "vit_base_patch16_siglip_224": EXACT,
    "vit_base_patch16_siglip_256": EXACT,
    "vit_base_patch16_siglip_384": EXACT,
    "vit_base_patch16_siglip_512": EXACT,
    "vit_base_patch32_siglip_256": TANH,
    "vit_large_patch16_siglip_256": EXACT,
    "vit_large_patch16_siglip_384": EXACT,
    "vit_large_patch16_siglip_512": TANH,
    "vit_so400m_patch14_siglip_224": EXACT,
    "vit_so400m_patch14_siglip_378": EXACT,
    "vit_so400m_patch14_siglip_384": EXACT,
    "vit_so400m_patch16_siglip_256": TANH,
    "vit_so400m_patch16_siglip_384": TANH,
    "vit_so400m_patch16_siglip_512": TANH,
    "vit_giantopt_patch16_siglip_256": TANH,
    "vit_giantopt_patch16_siglip_384": TANH,
}
"""timm's ViTs of this shape, and whether they compute GELU exactly. A name fixes all of a ViT."""
SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
"""Their widths, layers, heads, and widths between layers."""
EPS = 1e-6
"""Of timm's layer norms."""
TEXT_EPS = 1e-5
"""Of open_clip's, where a configuration does not say."""
FIXED = {
    "vision_cfg.timm_pool": "map",
    "vision_cfg.timm_proj": "none",
    "text_cfg.no_causal_mask": True,
    "text_cfg.proj_bias": True,
    "text_cfg.pool_type": "last",
}
"""What makes a model a SigLIP, in open_clip's configuration."""
FREE = frozenset(
    {"embed_dim", "custom_text", "init_logit_scale", "init_logit_bias"}
    | {f"vision_cfg.{key}" for key in ("image_size", "timm_model_name", "timm_model_pretrained")}
    | {f"text_cfg.{key}" for key in ("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio")}
    | {f"text_cfg.{key}" for key in ("hf_tokenizer_name", "tokenizer_kwargs.clean", "norm_kwargs.eps")}
    | {"text_cfg.act_kwargs.approximate"}
)
"""What may differ between SigLIPs."""
NEEDED = ("embed_dim", "init_logit_bias", "text_cfg.hf_tokenizer_name")
VISION_NAMES = (
    ("visual.trunk.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual.trunk.pos_embed", "vision_model.embeddings.position_embedding.weight"),
    ("visual.trunk.blocks.", "vision_model.encoder.layers."),
    ("visual.trunk.norm.", "vision_model.post_layernorm."),
    ("visual.trunk.attn_pool.latent", "vision_model.head.probe"),
    ("visual.trunk.attn_pool.proj.", "vision_model.head.attention.out_proj."),
    ("visual.trunk.attn_pool.norm.", "vision_model.head.layernorm."),
    ("visual.trunk.attn_pool.mlp.", "vision_model.head.mlp."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.proj.", ".self_attn.out_proj."),
)
TEXT_NAMES = (
    ("text.token_embedding.", "text_model.embeddings.token_embedding."),
    ("text.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("text.transformer.resblocks.", "text_model.encoder.layers."),
    ("text.ln_final.", "text_model.final_layer_norm."),
    ("text.text_projection.", "text_model.head."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
"""Parts of names in open_clip's files, and what transformers calls the same."""
POSITIONS, POOLING = "visual.trunk.pos_embed", "visual.trunk.attn_pool."
FUSED_POOLING = "vision_model.head.attention.in_proj_"
SCALARS = ("logit_scale", "logit_bias")


def is_siglip(model_cfg: Mapping[str, Any]) -> bool:
    """Whether open_clip's configuration names one of timm's ViTs of SigLIP's shape."""
    return model_cfg.get("vision_cfg", {}).get("timm_model_name") in VITS


def what_differs(model_cfg: Mapping[str, Any]) -> list[str]:
    """What in open_clip's configuration makes another model than a SigLIP of it."""
    found = dict(_flat(model_cfg))
    wrong = [f"{key}={found.get(key)!r}" for key, value in FIXED.items() if found.get(key) != value]
    wrong += [f"{key}=None" for key in NEEDED if not found.get(key)]
    wrong += [key for key in found if key not in FREE and key not in FIXED]
    if cleaning(model_cfg) not in CLEANING:
        wrong.append(f"text_cfg.tokenizer_kwargs.clean={cleaning(model_cfg)!r}")
    return wrong


def cleaning(model_cfg: Mapping[str, Any]) -> Any:
    """open_clip's name for what is done to a text before its tokenizer."""
    return (model_cfg["text_cfg"].get("tokenizer_kwargs") or {}).get("clean", "whitespace")


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is set, by keys with dots; what is off is as good as not there."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None and value is not False:
            yield prefix + key, value


def siglip_config(model_cfg: Mapping[str, Any], weights: Mapping[str, Tensor]) -> SiglipConfig:
    """The same for transformers; what a name of timm fixes and its weights show is read from them."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    name = vision["timm_model_name"]
    patches = weights["visual.trunk.patch_embed.proj.weight"]  # [H, 3, P, P]
    blocks = [key for key in weights if key.startswith("visual.trunk.blocks.") and ".norm1.weight" in key]
    by_tanh = (text.get("act_kwargs") or {}).get("approximate") == "tanh"
    return SiglipConfig(
        vision_config={
            "hidden_size": patches.shape[0],
            "patch_size": patches.shape[2],
            "image_size": vision["image_size"],
            "num_hidden_layers": len(blocks),
            "num_attention_heads": SIZES[name.split("_")[1]][2],
            "intermediate_size": weights["visual.trunk.blocks.0.mlp.fc1.bias"].shape[0],
            "hidden_act": VITS[name],
            "layer_norm_eps": EPS,
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "vocab_size": text["vocab_size"],
            "projection_size": model_cfg["embed_dim"],
            "hidden_act": TANH if by_tanh else EXACT,
            "layer_norm_eps": (text.get("norm_kwargs") or {}).get("eps", TEXT_EPS),
            "bos_token_id": None,  # read by nothing, and the defaults are beyond most vocabularies
            "eos_token_id": None,
        },
    )


def timm_name(vision: SiglipVisionConfig) -> str | None:
    """The ViT of timm that computes the same; None where there is none."""
    sizes = (
        vision.hidden_size,
        vision.num_hidden_layers,
        vision.num_attention_heads,
        vision.intermediate_size,
    )
    for size, known in SIZES.items():
        name = f"vit_{size}_patch{vision.patch_size}_siglip_{vision.image_size}"
        if sizes == known and VITS.get(name) == vision.hidden_act and vision.layer_norm_eps == EPS:
            return name
    return None


def from_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an open_clip SigLIP by transformers' names. Raises KeyError where some are missing."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith((f"{POOLING}q.", f"{POOLING}kv.")):
            continue
        new = _renamed(name, VISION_NAMES if name.startswith("visual.") else TEXT_NAMES)
        fused = next((part for part in (".attn.qkv.", ".attn.in_proj_") if part in new), None)
        if fused is not None:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                result[new.replace(fused, f".self_attn.{part}_proj.")] = rows.contiguous()
        elif name == POSITIONS:
            result[new] = tensor.squeeze(0)  # [1, N, H] -> [N, H]
        else:
            result[new] = tensor.reshape(1) if name in SCALARS else tensor
    for kind in ("weight", "bias"):
        result[FUSED_POOLING + kind] = torch.cat([weights[f"{POOLING}{part}.{kind}"] for part in ("q", "kv")])
    return result


def to_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of transformers' SiglipModel by open_clip's names."""
    result: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        names = VISION_NAMES if name.startswith("vision_model.") else TEXT_NAMES
        new = _renamed(name, ((ours, theirs) for theirs, ours in names))
        if name.startswith(FUSED_POOLING):
            kind = name.removeprefix(FUSED_POOLING)
            width = len(tensor) // 3
            for part, rows in zip(("q", "kv"), tensor.split([width, 2 * width]), strict=True):
                result[f"{POOLING}{part}.{kind}"] = rows.clone()
        elif ".self_attn.q_proj." in name:
            fused = ".attn.qkv." if names is VISION_NAMES else ".attn.in_proj_"
            parts = [weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            result[new.replace(".self_attn.q_proj.", fused)] = torch.cat(parts)
        elif new == POSITIONS:
            result[new] = tensor[None].contiguous()  # [N, H] -> [1, N, H]
        else:
            result[new] = tensor.reshape(()) if name in SCALARS else tensor.contiguous()
    return result


def _renamed(name: str, parts: Iterable[tuple[str, str]]) -> str:
    for old, new in parts:
        name = name.replace(old, new)
    return name
