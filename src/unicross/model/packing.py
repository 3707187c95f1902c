"""Texts end to end, without padding: what a text tower computes token by token costs its tokens only.

Attention alone sees texts one by one (Zeng et al. 2022, "Boosting Distributed Training Performance of the
Unpadded BERT Model"): on GPUs by a kernel that knows where each text begins, elsewhere padded to the longest
of their group.

Letters: B texts, L tokens of the longest, T tokens of all texts, H hidden, A heads, d of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from unicross.data.tokens import Tokens
from unicross.device import send
from unicross.model.backbones import embeddings_of
from unicross.model.weights import quiet_transformers

if TYPE_CHECKING:
    from unicross.model.tower import Tower

PACKED = "packed"

LEAST_TOGETHER, MOST_GROUPS = 16, 4
"""Texts in the smallest of the groups of like length, and how many groups there are at most."""


@dataclass(frozen=True, slots=True)
class SequenceIndex:
    """Where the tokens of some texts are: one after another in a pack, and in padded tables [b, l] of groups.

    The places of all tables are numbered through, P of them.
    """

    starts: Tensor | None  # [B + 1] int32, of each text in the pack, and its end; None without the kernel
    longest: int  # text, in tokens
    tables: tuple[tuple[int, int], ...]  # [b, l] of each group
    token_at: Tensor  # [P] the token at each place; any where there is padding
    place_of: Tensor  # [T]
    seen: tuple[Tensor, ...]  # [b, 1, 1, l] bool, no padding, for each group

    @classmethod
    def of(cls, groups: Sequence[NDArray[np.integer]], on_device: Tensor) -> Self:
        """Of texts that follow each other, of so many tokens, known here by group and on the device [B].

        Made on the device: it is neither waited for nor sent more than it has.
        """
        device = on_device.device
        tables = tuple((len(lengths), int(lengths.max())) for lengths in groups)
        tokens = int(sum(lengths.sum() for lengths in groups))
        ends = on_device.cumsum(0)  # [B] of each text in the pack
        starts = ends - on_device
        token_at, rows, seen = list[Tensor](), list[Tensor](), list[Tensor]()
        text = place = 0
        for count, longest in tables:
            texts = slice(text, text + count)
            column = torch.arange(longest, device=device)  # [l]
            token_at.append((starts[texts, None] + column).flatten())
            rows.append(place + torch.arange(count, device=device) * longest)  # [b] where each text begins
            seen.append((column < on_device[texts, None])[:, None, None])
            text, place = text + count, place + count * longest
        shift = torch.repeat_interleave(torch.cat(rows) - starts, on_device, output_size=tokens)  # [T]
        return cls(
            starts=F.pad(ends, (1, 0)).to(torch.int32) if _has_kernel(device) else None,
            longest=max(longest for _, longest in tables),
            tables=tables,
            token_at=torch.cat(token_at).clamp(max=tokens - 1),
            place_of=torch.arange(tokens, device=device) + shift,
            seen=tuple(seen),
        )

    def padded(self, pack: Tensor) -> list[Tensor]:
        """[T, ...] -> [b, l, ...] for each group"""
        rows = pack.index_select(0, self.token_at).split([count * longest for count, longest in self.tables])
        return [part.unflatten(0, table) for part, table in zip(rows, self.tables, strict=True)]

    def packed(self, tables: Sequence[Tensor]) -> Tensor:
        """[b, l, ...] for each group -> [T, ...]"""
        return torch.cat([table.flatten(0, 1) for table in tables]).index_select(0, self.place_of)


def _attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    sequences: SequenceIndex,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each text. Query, key and value are [1, A, T, d]; returns [1, T, A, d]."""
    q, k, v = rows = [part[0].transpose(0, 1) for part in (query, key, value)]  # [T, A, d]
    scale = scaling or query.shape[-1] ** -0.5
    if sequences.starts is not None and dropout == 0 and _fits_kernel(query):
        own = q * (scale * q.shape[-1] ** 0.5)  # not in every version of PyTorch does it take a scale
        begin, longest = sequences.starts, sequences.longest
        texts: Tensor = varlen_attn(own, k, v, begin, begin, longest, longest)  # type: ignore[assignment]
        return texts[None], None
    attend = _plain if query.device.type == "cpu" else F.scaled_dot_product_attention
    mixed = []
    for *table, seen in zip(*map(sequences.padded, rows), sequences.seen, strict=True):
        q, k, v = (part.transpose(1, 2) for part in table)  # [b, A, l, d]
        mixed.append(attend(q, k, v, attn_mask=seen, dropout_p=dropout, scale=scale).transpose(1, 2))
    return sequences.packed(mixed)[None], None


def _has_kernel(device: torch.device) -> bool:
    """Whether PyTorch's kernel for texts of unlike lengths, flash attention, runs there: from Ampere on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _fits_kernel(query: Tensor) -> bool:
    """Whether it takes such queries. It knows no dropout."""
    return query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] % 8 == 0


def _plain(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, dropout_p: float, scale: float) -> Tensor:
    """What the fused kernel computes, in plain products: its backward is faster on the CPU."""
    scores = q @ k.mT * scale  # [b, A, l, l]
    return F.dropout(scores.masked_fill(~attn_mask, -torch.inf).softmax(dim=-1), dropout_p) @ v


AttentionInterface.register(PACKED, _attention)
AttentionMaskInterface.register(PACKED, lambda *_, **__: None)


def encode_texts(tower: Tower, tokens: Tokens) -> Tensor:
    """Pooled features [B, H] of texts, in groups of like length.

    A group is padded to its longest, in the whole tower or, where that packs, in attention only. Few texts
    are long, so the groups shrink as texts grow.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    lengths, longest = tokens.lengths[order], tokens.lengths.max()
    device = tokens.ids.device
    sorting, unsorting = (send(torch.from_numpy(o), device) for o in (order, np.argsort(order)))
    ids, mask = tokens.ids[sorting, :longest], tokens.mask[sorting, :longest]  # [B, L]
    groups = [slice(start, stop) for start, stop in pairwise([0, *_halvings(len(order)), len(order)])]
    if tower.packs:
        pooled = packed_features(tower, ids, mask, [lengths[group] for group in groups])
    else:
        parts = [(group, slice(int(lengths[group].max()))) for group in groups]
        pooled = torch.cat([tower(input_ids=ids[part], mask=mask[part]) for part in parts])
    return pooled[unsorting]


def _halvings(count: int) -> list[int]:
    """Where to cut `count` things: after the first half, after half of the rest, and so on."""
    cuts = [0]
    while (rest := count - cuts[-1]) >= 2 * LEAST_TOGETHER and len(cuts) < MOST_GROUPS:
        cuts.append(cuts[-1] + rest // 2)
    return cuts[1:]


def packed_features(tower: Tower, ids: Tensor, mask: Tensor, groups: Sequence[NDArray[np.integer]]) -> Tensor:
    """Pooled features [B, H] of texts, as `tower` makes them of `ids` and `mask` [B, L].

    Args:
        groups: for each group of texts that follow each other their lengths in tokens, at least one each;
            attention pads within groups.
    """
    on_device = mask.sum(dim=1)  # [B]
    sequences = SequenceIndex.of(groups, on_device)
    whole = SequenceIndex.of([np.concatenate(groups)], on_device)
    with _packing(tower, whole):
        hidden = tower.backbone(input_ids=ids, sequences=sequences).last_hidden_state[0]  # [T, H]
    return tower.pooled(whole.padded(hidden)[0], mask)


@contextmanager
def _packing(tower: Tower, whole: SequenceIndex) -> Iterator[None]:
    """Within, the tower's layers see its embeddings of padded texts as one pack [1, T, H].

    Their attention wants `sequences`; transformers hands it on from the backbone's arguments.
    """
    backbone = tower.backbone
    before = backbone.config._attn_implementation
    hook = embeddings_of(backbone).register_forward_hook(lambda _, __, table: whole.packed([table])[None])
    backbone.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        backbone.set_attn_implementation(before)
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
