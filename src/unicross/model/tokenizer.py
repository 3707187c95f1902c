"""How a text becomes tokens: a pretrained encoder's own tokenizer, or one trained on the captions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from unicross.errors import CheckpointError
from unicross.model.backbones import SPECIAL_TOKENS
from unicross.model.hub import first_line


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a text encoder. Raises CheckpointError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: no tokenizer could be loaded: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        raise CheckpointError(f"{source}: its tokenizer has no padding token: give it one, or take another")
    return tokenizer


def check_vocabulary(source: str, tokenizer: PreTrainedTokenizerFast, text_model: PreTrainedModel) -> None:
    """Raise CheckpointError where the tokenizer makes ids for which the model has no row."""
    rows = getattr(text_model.get_input_embeddings(), "num_embeddings", None)
    largest = max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and largest >= rows:
        raise CheckpointError(
            f"{source}: its tokenizer makes ids up to {largest} and its table of words has {rows} rows: "
            f"they do "
            "not belong together: fetch both again"
        )


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A lower-casing BPE tokenizer of at most `vocabulary` pieces, for random text towers.

    BPE (Sennrich et al. 2016) and not BERT's WordPiece, whose trainer numbers equal captions differently
    from one call to the next.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
