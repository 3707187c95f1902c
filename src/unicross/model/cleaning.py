"""What open_clip does to a text before its tokenizer, put into the tokenizer.

There it is Python around the tokenizer, with ftfy. As a part of the tokenizer it goes wherever that goes:
into checkpoints, into exports, and to their libraries. Of ftfy, what it does to well-formed text is followed
(straight quotes, no HTML, composed letters); broken encodings are not repaired.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

ENTITIES = {"&amp;": "&", "&quot;": '"', "&#39;": "'", "&apos;": "'", "&lt;": "<", "&gt;": ">", "&nbsp;": " "}
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BASIC: tuple[Any, ...] = (
    normalizers.NFC(),
    *(normalizers.Replace(entity, letter) for entity, letter in ENTITIES.items()),
    normalizers.Replace(Regex("[\u02bc\u2018-\u201b]"), "'"),
    normalizers.Replace(Regex("[\u201c-\u201f]"), '"'),
)
SPACES: tuple[Any, ...] = (normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip())
PUNCTUATION = r"[!-/:-@\[-`{-~\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff5e]"
"""ASCII's, and the same in full width, of which ftfy makes ASCII's."""
CLEANING: dict[str, tuple[Any, ...]] = {
    "whitespace": (*BASIC, *SPACES),
    "lower": (*BASIC, normalizers.Lowercase(), *SPACES),
    "canonicalize": (
        *BASIC,
        normalizers.Replace(Regex("[_\uff3f]"), " "),
        normalizers.Replace(Regex(PUNCTUATION), ""),
        normalizers.Lowercase(),
        *SPACES,
    ),
}
"""By open_clip's names."""


def with_cleaning(
    tokenizer: PreTrainedTokenizerFast, how: str, max_tokens: int, rows: int
) -> PreTrainedTokenizerFast:
    """A tokenizer that cleans texts first, for at most so many tokens; `how` is a name in CLEANING.

    Added tokens beyond the `rows` of the model's table of words (T5's sentinels) are left out.
    """
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    layout["added_tokens"] = [token for token in layout["added_tokens"] if token["id"] < rows]
    backend = Tokenizer.from_str(json.dumps(layout))
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([*CLEANING[how], *own])
    special = {kind: getattr(tokenizer, kind) for kind in SPECIAL if getattr(tokenizer, kind) is not None}
    # Of the plain class: those of T5 and Gemma make their own normaliser again whenever they are loaded
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_tokens,
        padding_side=tokenizer.padding_side,
        **special,
    )
