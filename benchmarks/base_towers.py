"""ViT-B/16 and BERT-base with random weights, for measurements where nothing can be downloaded.

    python benchmarks/base_towers.py FOLDER TEXT_TOWER

Writes FOLDER/vit-base and FOLDER/bert-base; the tokenizer is that of TEXT_TOWER, which shares BERT's words.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import AutoTokenizer, BertConfig, BertModel, ViTConfig, ViTImageProcessor, ViTModel


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("text")
    arguments = parser.parse_args()
    image, text = arguments.folder / "vit-base", arguments.folder / "bert-base"
    ViTModel(ViTConfig()).save_pretrained(image)
    ViTImageProcessor().save_pretrained(image)
    BertModel(BertConfig()).save_pretrained(text)
    AutoTokenizer.from_pretrained(arguments.text).save_pretrained(text)


if __name__ == "__main__":
    main()
