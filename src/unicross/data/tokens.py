"""Captions as tokens: tokenised once, padded for a batch.

Letters: N items, C captions, B batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from unicross.batches import Indices
from unicross.data.items import Item, Items, text_numbers
from unicross.data.preparation import TextRules
from unicross.progress import track

TEXTS_AT_ONCE = 256
"""Texts that pass a tower together, as `images.IMAGES_AT_ONCE`."""
CHUNK = 8192
"""Captions that are tokenised at a time."""
PLAIN = TextRules()


@dataclass(frozen=True, slots=True)
class Tokens:
    """A padded batch: ids [B, L] int64, mask [B, L] int64 (1 where a token is), lengths [B] on the host."""

    ids: Tensor
    mask: Tensor
    lengths: Indices

    def rows(self, rows: slice) -> Tokens:
        """Some of the rows."""
        return Tokens(self.ids[rows], self.mask[rows], self.lengths[rows])


class TokenizedTexts:
    """Texts, tokenised once and kept flat. C: texts."""

    def __init__(
        self,
        texts: Any,
        tokenizer: PreTrainedTokenizerFast,
        max_tokens: int,
        rules: TextRules = PLAIN,
    ) -> None:
        """`texts` are Arrow strings [C]; what is beyond `max_tokens` of one is cut."""
        self.texts = texts
        self.full = 0
        """How many have `max_tokens` tokens, so were probably cut."""
        self._padding = tokenizer.pad_token_id
        lengths, tokens = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
        for start in range(0, len(texts), CHUNK):  # a tokenizer's answer is many times what is kept
            encoded: list[list[int]] = tokenizer(
                [rules.prefix + text for text in texts.slice(start, CHUNK).to_pylist()],
                truncation=True,
                max_length=max_tokens,
                return_attention_mask=False,
            )["input_ids"]
            self.full += sum(len(ids) >= max_tokens for ids in encoded)
            if rules.pad_to is not None:
                encoded = [_padded(ids, rules.pad_to, self._padding, rules.pad_left) for ids in encoded]
            lengths.append(np.array([len(ids) for ids in encoded], dtype=np.int64))
            tokens.append(np.array([token for ids in encoded for token in ids], dtype=np.int32))
        self._bounds: Indices = np.cumsum(np.concatenate(lengths))
        self._flat = np.concatenate(tokens)

    def __len__(self) -> int:
        return len(self.texts)

    def lengths(self) -> Indices:
        """Tokens of each text that the tower sees, special ones included. [C]"""
        return self._bounds[1:] - self._bounds[:-1]

    def words(self) -> Indices:
        """The ids that occur, that of padding among them, ascending."""
        return np.unique(np.append(self._flat, self._padding)).astype(np.int64)

    def tokens(self, rows: Indices) -> Tokens:
        """Some of the texts as one batch, padded on the right whatever the tokenizer would do."""
        lengths = self.lengths()[rows]
        ids = np.full((len(rows), lengths.max()), self._padding, dtype=np.int64)  # [B, L]
        for target, row in zip(ids, rows, strict=True):
            text = self._flat[self._bounds[row] : self._bounds[row + 1]]
            target[: len(text)] = text
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask), lengths)

    def batches(self, rows: Indices, size: int) -> Iterator[Indices]:
        """Positions in `rows` in batches of `size`, like lengths together: that pads least."""
        order = np.argsort(self.lengths()[rows], kind="stable")
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def encoded(
        self, encode: Callable[[Tensor, Tensor], NDArray[np.float32]], dim: int, size: int = TEXTS_AT_ONCE
    ) -> NDArray[np.float32]:
        """The vectors [C, D] that `encode` makes of ids and mask, both [B, L], `size` texts at a time."""
        vectors = np.zeros((len(self), dim), np.float32)
        batches = list(self.batches(np.arange(len(self)), size))
        for rows in track("embedding texts", batches, len(batches)):
            padded = self.tokens(rows)
            vectors[rows] = encode(padded.ids, padded.mask)
        return vectors


class CaptionTokens(TokenizedTexts):
    """The captions of a list of items as tokens."""

    def __init__(
        self,
        items: Sequence[Item],
        tokenizer: PreTrainedTokenizerFast,
        max_tokens: int,
        rules: TextRules = PLAIN,
    ) -> None:
        columns = Items.of(items)
        super().__init__(columns.texts, tokenizer, max_tokens, rules)
        self.first, self.counts = columns.first, columns.counts  # [N] first caption of each item; how many
        self.item = columns.item_of_text  # [C]
        self.number = text_numbers(self.texts)  # [C] equal for equal texts, in case and spaces too


def _padded(ids: list[int], length: int, padding: int, left: bool) -> list[int]:
    missing = [padding] * (length - len(ids))
    return missing + ids if left else ids + missing
