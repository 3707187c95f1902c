"""Texts end to end, without padding: what a text tower computes token by token costs its tokens only.

Attention alone sees texts one by one, padded to the longest of their group (Zeng et al. 2022, "Boosting
Distributed Training Performance of the Unpadded BERT Model").

Letters: B texts, L tokens of the longest, T tokens of all texts, H hidden, A heads, d of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from unicross.model import Tower
from unicross.towers import embeddings_of, quiet_transformers

PACKED = "packed"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of some texts are: one after another in a pack, and in a padded table [b, l]."""

    tokens: slice  # in the pack of all texts
    token_at: Tensor  # [b, l] the token at each place; any where there is padding
    place_of: Tensor  # [tokens] among the b * l places
    seen: Tensor  # [b, 1, 1, l] bool, no padding

    @classmethod
    def of(cls, lengths: NDArray[np.integer], on_device: Tensor, first: int) -> Self:
        """Of texts of so many tokens, known here and on the device [b], the first at `first` of the pack.

        Made on the device: it is neither waited for nor sent more than it has.
        """
        count, longest, device = int(lengths.sum()), int(lengths.max()), on_device.device
        place = torch.arange(longest, device=device)  # [l]
        starts = on_device.cumsum(0) - on_device  # [b] of each text in the pack
        rows = torch.arange(len(lengths), device=device) * longest  # [b] of each text in the table
        shift = torch.repeat_interleave(rows - starts, on_device, output_size=count)  # [tokens]
        return cls(
            tokens=slice(first, first + count),
            token_at=(starts[:, None] + place).clamp(max=count - 1),
            place_of=torch.arange(count, device=device) + shift,
            seen=(place < on_device[:, None])[:, None, None],
        )

    def padded(self, pack: Tensor) -> Tensor:
        """[T, ...] -> [b, l, ...]"""
        rows = pack[self.tokens].index_select(0, self.token_at.flatten())
        return rows.unflatten(0, self.token_at.shape)

    def packed(self, table: Tensor) -> Tensor:
        """[b, l, ...] -> [tokens, ...]"""
        return table.flatten(0, 1).index_select(0, self.place_of)


_groups: ContextVar[Sequence[Places]] = ContextVar("groups of the texts that are passing a tower")


def _attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each text. Query, key and value are [1, A, T, d]; returns [1, T, A, d]."""
    attend = _plain if query.device.type == "cpu" else F.scaled_dot_product_attention
    rows = [part[0].transpose(0, 1) for part in (query, key, value)]  # [T, A, d]
    found = []
    for group in _groups.get():
        q, k, v = (group.padded(part).transpose(1, 2) for part in rows)  # [b, A, l, d]
        mixed = attend(q, k, v, attn_mask=group.seen, dropout_p=dropout, scale=scaling)
        found.append(group.packed(mixed.transpose(1, 2)))
    return torch.cat(found)[None], None


def _plain(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, dropout_p: float, scale: float | None
) -> Tensor:
    """What the fused kernel computes, in plain products: on the CPU its backward is faster (see `speed`)."""
    scores = q @ k.mT * (scale or q.shape[-1] ** -0.5)  # [b, A, l, l]
    return F.dropout(scores.masked_fill(~attn_mask, -torch.inf).softmax(dim=-1), dropout_p) @ v


AttentionInterface.register(PACKED, torch.compiler.disable(_attention))
AttentionMaskInterface.register(PACKED, lambda *_, **__: None)


def packed_features(tower: Tower, ids: Tensor, mask: Tensor, groups: Sequence[NDArray[np.integer]]) -> Tensor:
    """Pooled features [B, H] of texts, as `tower` makes them of `ids` and `mask` [B, L].

    Args:
        groups: for each group of texts that follow each other their lengths in tokens, at least one each;
            attention pads within groups.
    """
    on_device = mask.sum(dim=1)  # [B]
    whole = Places.of(np.concatenate(groups), on_device, 0)
    places, text, token = list[Places](), 0, 0
    for lengths in groups:
        places.append(Places.of(lengths, on_device[text : text + len(lengths)], token))
        text, token = text + len(lengths), places[-1].tokens.stop
    with _packing(tower, whole, places):
        hidden = tower.backbone(input_ids=ids).last_hidden_state[0]  # [T, H]
    return tower.pooled(whole.padded(hidden), mask)


@contextmanager
def _packing(tower: Tower, whole: Places, groups: Sequence[Places]) -> Iterator[None]:
    """Within, the tower's layers see its embeddings of padded texts as one pack [1, T, H]."""
    backbone = tower.backbone
    before = backbone.config._attn_implementation
    hook = embeddings_of(backbone).register_forward_hook(lambda _, __, table: whole.packed(table)[None])
    token = _groups.set(groups)
    backbone.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)
        _groups.reset(token)
        hook.remove()


def can_pack(tower: Tower) -> bool:
    """Whether the tower makes the same of packed texts: tried on two of unlike length.

    Not so where something else than attention looks along a text, as relative positions and causal masks do.
    """
    if tower.pool == "pooler":
        return False
    config, device, training = tower.backbone.config, next(tower.parameters()).device, tower.training
    lengths = np.array([2, 4])
    mask = torch.from_numpy((np.arange(4) < lengths[:, None]).astype(np.int64)).to(device)
    padding = config.pad_token_id or 0
    words = (padding + 1 + torch.arange(4, device=device)) % config.vocab_size
    ids = torch.where(mask > 0, words, padding)
    tower.eval()
    try:
        with torch.no_grad(), quiet_transformers():
            packed = packed_features(tower, ids, mask, [lengths[:1], lengths[1:]])
            return torch.allclose(packed, tower(input_ids=ids, mask=mask), atol=1e-4, rtol=1e-4)
    except (IndexError, RuntimeError, TypeError, ValueError):
        return False
    finally:
        tower.train(training)
