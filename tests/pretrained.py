"""Small pretrained pairs of every family, saved as the hub lays them out: weights, tokenizer, picture
processor."""

from __future__ import annotations

import gzip
import json
import string
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from tiny import SMALL

TEXTS = (
    "a red square on the left",
    "A Photo of a BLUE block",
    "two dogs",
    "something yellow, at the top of a grey ground with more words than the others have",
)
HALF = SMALL | {"initializer_range": 0.3}
"""Weights so large that a text's vector depends on all of its words."""
VISION = HALF | {"image_size": 32, "patch_size": 8}
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def clip_tokenizer(**more: Any) -> PreTrainedTokenizerFast:
    """With CLIP's real vocabulary where open_clip_torch, which ships it, is installed; else a small one."""
    spec = find_spec("open_clip")
    if spec is not None and spec.submodule_search_locations:
        file = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
        lines = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
        merges = [(a, b) for a, b in (line.split() for line in lines)]
    else:
        bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        bpe.normalizer = normalizers.Lowercase()
        bpe.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=300, end_of_word_suffix="</w>", show_progress=False)
        bpe.train_from_iterator(TEXTS, trainer)
        merges = [tuple(pair) for pair in _merges(bpe)]
    letters = _bytes()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    for word in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[word] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, **more)


def word_tokenizer(**more: Any) -> PreTrainedTokenizerFast:
    """One of whole pieces, as BERT's, Gemma's and others' are."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **names | {"model_max_length": 64} | more)


def siglip2_tokenizer() -> PreTrainedTokenizerFast:
    """Of letters, of the class that transformers has for SigLIP 2: it writes small."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *string.ascii_lowercase, ","]
    vocabulary = {word: number for number, word in enumerate(words)}
    return transformers.Siglip2Tokenizer(vocab=vocabulary, merges=[], padding_side="right")


def _merges(bpe: Tokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(bpe.to_str())["model"]["merges"]
    return merges


def _bytes() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _clip(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    text = HALF | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return _model(kind, text_config=text, vision_config=VISION, projection_dim=24)


def _siglip(kind: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    text = HALF | {"vocab_size": len(tokenizer), "max_position_embeddings": 20, "projection_size": 32}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = _model(kind, text_config=text, vision_config=VISION)
    model.logit_scale.data.fill_(4.77)
    model.logit_bias.data.fill_(-12.9)
    return model


def _bert(kind: str, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> PreTrainedModel:
    text = HALF | {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0}
    return _model(kind, text_config=text, vision_config=VISION, projection_dim=24, **changes)


def _dual(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    vision = transformers.ViTModel(transformers.ViTConfig(**VISION))
    text = transformers.BertModel(
        transformers.BertConfig(**HALF, vocab_size=len(tokenizer), max_position_embeddings=64)
    )
    return transformers.VisionTextDualEncoderModel(vision_model=vision, text_model=text)


def _align(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    text = HALF | {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0}
    vision = {
        "image_size": 32,
        "width_coefficient": 0.2,
        "depth_coefficient": 0.2,
        "hidden_dim": 24,
        "kernel_sizes": [3],
        "in_channels": [16],
        "out_channels": [16],
        "strides": [2],
        "num_block_repeats": [1],
        "expand_ratios": [1],
        "initializer_range": 0.3,
    }
    return _model("align", text_config=text, vision_config=vision, projection_dim=8)


def _naflex(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    text = HALF | {"vocab_size": len(tokenizer), "max_position_embeddings": 20, "projection_size": 32}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vision = HALF | {"patch_size": 8, "num_patches": 16}
    return _model("siglip2", text_config=text, vision_config=vision)


def _model(kind: str, **config: Any) -> PreTrainedModel:
    model: PreTrainedModel = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(kind, **config)
    )
    return model


CROP = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
SQUASH = {"size": {"height": 32, "width": 32}}
FAMILIES = {
    "clip": (lambda t: _clip("clip", t), clip_tokenizer, "CLIPImageProcessorPil", CROP),
    "metaclip_2": (
        lambda t: _clip("metaclip_2", t),
        word_tokenizer,
        "CLIPImageProcessorPil",
        SQUASH | {"do_center_crop": False},
    ),
    "siglip": (lambda t: _siglip("siglip", t), word_tokenizer, "SiglipImageProcessorPil", SQUASH),
    "siglip2-fixed": (
        lambda t: _siglip("siglip", t),
        lambda: word_tokenizer(padding_side="left"),
        "SiglipImageProcessorPil",
        SQUASH | {"resample": 2},
    ),
    "chinese_clip": (
        lambda t: _bert("chinese_clip", t),
        word_tokenizer,
        "ChineseCLIPImageProcessorPil",
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    ),
    "blip": (lambda t: _bert("blip", t), word_tokenizer, "BlipImageProcessorPil", SQUASH),
    "align": (
        _align,
        word_tokenizer,
        "EfficientNetImageProcessorPil",
        SQUASH | {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
    ),
    "dual": (_dual, word_tokenizer, "ViTImageProcessorPil", SQUASH | {"resample": 1}),
}
"""By name: the model for a tokenizer, the tokenizer, the class of the picture processor, its settings."""


OPEN_CLIP_SIGLIP = {
    "embed_dim": 48,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_base_patch16_siglip_224",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 20,
        "vocab_size": 200,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 48,
        "heads": 2,
        "layers": 2,
        "mlp_ratio": 1.3334,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
"""As open_clip's ViT-B-16-SigLIP says it; of its ViT, timm's name fixes 12 heads and GELU without tanh."""
SIGLIP_PREPARED = {
    "size": 32,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def open_clip_siglip() -> transformers.SiglipModel:
    """A SiglipModel of transformers with the shape of OPEN_CLIP_SIGLIP."""
    torch.manual_seed(0)
    both = HALF | {"hidden_size": 48, "hidden_act": "gelu"}
    text = both | {"vocab_size": 200, "max_position_embeddings": 20}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    vision = both | {"num_attention_heads": 12, "image_size": 32, "patch_size": 8}
    made = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # that no norm or bias passes for another
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        made.logit_scale.fill_(4.77)
        made.logit_bias.fill_(-12.9)
    return made


def by_open_clips_names(model: transformers.SiglipModel) -> dict[str, torch.Tensor]:
    """The weights of a SiglipModel as open_clip and timm name them."""
    held = dict(model.state_dict())
    made = {name: held.pop(name).reshape(()) for name in ("logit_scale", "logit_bias")}

    def move(new: str, old: str) -> None:
        for kind in ("weight", "bias"):
            made[f"{new}.{kind}"] = held.pop(f"{old}.{kind}")

    def fuse(new: str, layer: str) -> None:
        for kind in ("weight", "bias"):
            made[new + kind] = torch.cat([held.pop(f"{layer}.self_attn.{p}_proj.{kind}") for p in "qkv"])

    trunk, vision, pool = "visual.trunk", "vision_model", "visual.trunk.attn_pool"
    move(f"{trunk}.patch_embed.proj", f"{vision}.embeddings.patch_embedding")
    made[f"{trunk}.pos_embed"] = held.pop(f"{vision}.embeddings.position_embedding.weight")[None]
    move(f"{trunk}.norm", f"{vision}.post_layernorm")
    made[f"{pool}.latent"] = held.pop(f"{vision}.head.probe")
    for kind in ("weight", "bias"):
        q, k, v = held.pop(f"{vision}.head.attention.in_proj_{kind}").chunk(3)
        made |= {f"{pool}.q.{kind}": q.clone(), f"{pool}.kv.{kind}": torch.cat([k, v])}
    move(f"{pool}.proj", f"{vision}.head.attention.out_proj")
    move(f"{pool}.norm", f"{vision}.head.layernorm")
    for part in ("mlp.fc1", "mlp.fc2"):
        move(f"{pool}.{part}", f"{vision}.head.{part}")
    made["text.token_embedding.weight"] = held.pop("text_model.embeddings.token_embedding.weight")
    made["text.positional_embedding"] = held.pop("text_model.embeddings.position_embedding.weight")
    move("text.ln_final", "text_model.final_layer_norm")
    move("text.text_projection", "text_model.head")
    for layer in range(SMALL["num_hidden_layers"]):
        ours, block = f"{vision}.encoder.layers.{layer}", f"{trunk}.blocks.{layer}"
        fuse(f"{block}.attn.qkv.", ours)
        move(f"{block}.attn.proj", f"{ours}.self_attn.out_proj")
        for new, old in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            move(f"{block}.{new}", f"{ours}.{old}")
        for part in ("mlp.fc1", "mlp.fc2"):
            move(f"{block}.{part}", f"{ours}.{part}")
        ours, block = f"text_model.encoder.layers.{layer}", f"text.transformer.resblocks.{layer}"
        fuse(f"{block}.attn.in_proj_", ours)
        move(f"{block}.attn.out_proj", f"{ours}.self_attn.out_proj")
        for new, old in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
            move(f"{block}.{new}", f"{ours}.{old}")
        for new, old in (("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
            move(f"{block}.{new}", f"{ours}.{old}")
    assert not held
    return made


def make_open_clip_siglip(folder: Path) -> Path:
    """The same model as an open_clip folder, as the hub lays it out."""
    folder.mkdir()
    config = {"model_cfg": OPEN_CLIP_SIGLIP, "preprocess_cfg": SIGLIP_PREPARED}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(by_open_clips_names(open_clip_siglip()), folder / "open_clip_model.safetensors")
    word_tokenizer().save_pretrained(folder)
    return folder


NAFLEX = (_naflex, siglip2_tokenizer, "Siglip2ImageProcessorPil", {"patch_size": 8, "max_num_patches": 19})
"""Of SigLIP 2, which is used untrained only."""


def make_pair(family: str, folder: Path) -> Path:
    """A pair of random weights with its processors, as `save_pretrained` writes it."""
    if family == "siglip-open_clip":
        return make_open_clip_siglip(folder)
    make_model, make_tokenizer, processor, settings = NAFLEX if family == "naflex" else FAMILIES[family]
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    module = getattr(transformers, processor)
    module(**settings).save_pretrained(folder)
    return folder


ALL = (*FAMILIES, "siglip-open_clip")
"""What `make_pair` makes."""


def into_cache(folder: Path, cache: Path, name: str) -> None:
    """Lay a folder out as the hub's cache does for `name`."""
    place = cache / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    (place / "blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = place / "blobs" / f"{number:040d}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
