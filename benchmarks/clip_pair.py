"""A pair of the sizes of CLIP ViT-B/32 or SigLIP B/16 with random weights, where nothing can be downloaded.

    python benchmarks/clip_pair.py FOLDER [--family siglip] [--layers 12]

Its tokenizer has a word for each of a few; the vocabulary of its text tower is as large as the family's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

WORDS = (
    "a the of in on with and dog cat man woman child street snow water grass red blue green two runs plays"
)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=("clip", "siglip"), default="clip")
    parser.add_argument("--layers", type=int, default=12, help="of each tower")
    given = parser.parse_args()
    folder, layers = given.folder, {"num_hidden_layers": given.layers}
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS.split()))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 1), ("</s>", 2)]
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    texts = layers | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if given.family == "clip":
        tokenizer.model_max_length = 77
        # eos_token_id=2 means the greatest id to transformers, as in CLIP's own first files
        CLIPModel(CLIPConfig(text_config=texts, vision_config=layers)).save_pretrained(folder)
        CLIPImageProcessorPil().save_pretrained(folder)
    else:
        tokenizer.model_max_length = 64
        SiglipModel(SiglipConfig(text_config=texts, vision_config=layers)).save_pretrained(folder)
        SiglipImageProcessorPil().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
