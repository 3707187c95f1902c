"""Training only those rows of a word table that the captions use.

A multilingual tower has 250,000 words, of which a data set uses a few thousand. The others get no gradient,
and embeddings are not decayed, so they would stay as they are; but their gradients and moments would take
three times their memory and be gone through in every step. Here only the rows in use are parameters; the
weights come out the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unicross.data.tokens import TokenizedTexts
from unicross.model import TwoTower
from unicross.training.lora import BASE

WORTH = 0.5
"""A table of which less than this share of the rows is used is trained by these alone."""
USED = "used"
"""The name of the parameter with the rows in use."""


class UsedRows(nn.Module):
    """An embedding of which only some rows are trained; the others are looked up as they are."""

    def __init__(self, embedding: nn.Embedding, rows: Tensor) -> None:
        """`rows`: [U], those that are trained."""
        super().__init__()
        self.base_layer = embedding
        self.used = nn.Parameter(embedding.weight.detach()[rows].clone())  # [U, H]
        place = torch.full((len(embedding.weight),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("place", place, persistent=False)

    rows: Tensor
    place: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., H]"""
        place = self.place[ids]
        vectors = F.embedding(place.clamp(min=0), self.used)
        if self.training:
            return vectors
        return torch.where((place < 0)[..., None], self.base_layer(ids), vectors)


def train_used_words(model: TwoTower, captions: TokenizedTexts) -> bool:
    """Let a text tower train the word rows of these captions only, where that saves much. Returns whether."""
    try:
        embedding = model.text.backbone.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return False
    if not isinstance(embedding, nn.Embedding) or embedding.max_norm is not None:
        return False
    rows = captions.words()
    if len(rows) >= WORTH * len(embedding.weight):
        return False
    used = UsedRows(embedding, torch.from_numpy(rows).to(embedding.weight.device))
    model.text.backbone.set_input_embeddings(used)
    return True


def keep_used_only(model: TwoTower) -> None:
    """Where only rows are trained, let the whole table not move."""
    for module in model.modules():
        if isinstance(module, UsedRows):
            module.base_layer.requires_grad_(False)


def with_used_words(model: TwoTower, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole state of a model as the state of one that trains some rows only, such as `model`."""
    state = dict(weights)
    for name, module in model.named_modules():
        if isinstance(module, UsedRows):
            table = state.pop(f"{name}.weight")
            state |= {f"{name}{BASE}weight": table, f"{name}.{USED}": table[module.rows.to(table.device)]}
    return state


def without_used_words(model: TwoTower, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole state of a model of which some rows are trained only, under the names of a plain one."""
    state = dict(weights)
    for name, module in model.named_modules():
        if isinstance(module, UsedRows):
            used, table = state.pop(f"{name}.{USED}"), state.pop(f"{name}{BASE}weight")
            state[f"{name}.weight"] = table.index_copy(0, module.rows.to(table.device), used.to(table.dtype))
    return state
