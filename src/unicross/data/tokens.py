"""Captions as tokens: tokenised once, chosen and padded for a batch.

Letters: N items, C captions, B batch, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from unicross.batches import Indices
from unicross.data.items import Item, Items
from unicross.streams import stream

CHUNK = 8192
"""Captions that are tokenised at a time."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A padded batch: ids [B, L] int64, mask [B, L] int64 (1 where a token is), lengths [B] on the host."""

    ids: Tensor
    mask: Tensor
    lengths: Indices

    def rows(self, rows: slice) -> Tokens:
        """Some of the rows."""
        return Tokens(self.ids[rows], self.mask[rows], self.lengths[rows])


class CaptionTokens:
    """The captions of a list of items, tokenised once and kept flat."""

    def __init__(self, items: Sequence[Item], tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> None:
        columns = Items.of(items)
        self.texts = columns.texts  # [C] Arrow strings
        self.first, self.counts = columns.first, columns.counts  # [N] first caption of each item; how many
        self.item = np.repeat(np.arange(len(items), dtype=np.int64), self.counts)  # [C] item of each caption
        self._starts: dict[int, NDArray[np.int32]] = {}  # by seed: where each item begins [N]
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        lengths, tokens = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
        for start in range(0, len(self.texts), CHUNK):  # a tokenizer's answer is many times what is kept
            encoded = self._encode(self.texts.slice(start, CHUNK).to_pylist())
            lengths.append(np.array([len(e) for e in encoded], dtype=np.int64))
            tokens.append(np.array([token for e in encoded for token in e], dtype=np.int32))
        self._bounds: Indices = np.cumsum(np.concatenate(lengths))
        self._flat = np.concatenate(tokens)

    def __len__(self) -> int:
        return len(self.texts)

    def lengths(self) -> Indices:
        """Tokens of each caption, special ones included. [C]"""
        return self._bounds[1:] - self._bounds[:-1]

    def choose(self, items: Indices, turn: int, seed: int) -> Indices:
        """One caption of each item: over as many turns (epochs) as it has captions, each is used once. [B]"""
        if seed not in self._starts:  # the seed of a run: drawn once, not for every batch
            drawn = stream(seed, "captions").integers(0, 2**31, len(self.counts))
            self._starts = {seed: (drawn % np.maximum(self.counts, 1)).astype(np.int32)}
        return self.first[items] + (self._starts[seed][items] + turn) % self.counts[items]

    def siblings(self, captions: Indices, count: int, rng: np.random.Generator) -> Indices:
        """Other captions of the same items, in random order. [B] -> [count, B]

        They differ as long as there are enough; then they repeat, and an only caption is its own sibling.
        """
        items = self.item[captions]
        others = self.counts[items] - 1  # [B]
        keys = rng.random((len(items), max(int(others.max(initial=0)), 1)))
        keys[np.arange(keys.shape[1]) >= others[:, None]] = 2.0  # no such caption: last
        shifts = 1 + keys.argsort(axis=1)  # [B, most others]
        turns = np.arange(count)[:, None] % np.maximum(others, 1)  # [count, B]
        shift = np.minimum(shifts[np.arange(len(items)), turns], others)
        return self.first[items] + (captions - self.first[items] + shift) % self.counts[items]

    def tokens(self, captions: Indices) -> Tokens:
        """Stored captions as one padded batch."""
        return self._pad([self._flat[self._bounds[c] : self._bounds[c + 1]] for c in captions])

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded: list[list[int]] = self._tokenizer(
            list(texts), truncation=True, max_length=self._max_tokens, return_attention_mask=False
        )["input_ids"]
        return encoded

    def _pad(self, rows: Sequence[Sequence[int] | NDArray[np.int32]]) -> Tokens:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        ids = np.full((len(rows), lengths.max()), self._tokenizer.pad_token_id, dtype=np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[: len(row)] = row
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask), lengths)
