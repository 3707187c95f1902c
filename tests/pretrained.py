"""Small pretrained pairs of every family, saved as the hub lays them out: weights, tokenizer, picture
processor."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
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


def _merges(bpe: Tokenizer) -> list[list[str]]:
    import json

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


def make_pair(family: str, folder: Path) -> Path:
    """A pair of random weights with its processors, as `save_pretrained` writes it."""
    make_model, make_tokenizer, processor, settings = FAMILIES[family]
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    module = getattr(transformers, processor)
    module(**settings).save_pretrained(folder)
    return folder


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
