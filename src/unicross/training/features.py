"""Features of a batch: its views through the towers and their heads.

Letters: N items, V views, H the towers' width, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unicross.data.preparation import PatchCanvas
from unicross.data.tokens import Tokens
from unicross.data.views import apply_views
from unicross.model import TwoTower
from unicross.model.tower import Tower
from unicross.stage import Losses
from unicross.training.batch import Batch


@dataclass(frozen=True, slots=True)
class Features:
    """Unit vectors of one modality by item and view; None where no loss of the stage wants them."""

    cross: Tensor | None = None  # [N, V, D] in the shared space
    uni: Tensor | None = None  # [N, V, U] for the uni-modal loss

    def map(self, change: Callable[[Tensor], Tensor]) -> Features:
        return Features(*(None if t is None else change(t) for t in (self.cross, self.uni)))


def image_features(model: TwoTower, batch: Batch, rows: slice, losses: Losses) -> Features:
    """Features of some images, all views of a kind in one pass."""
    views, device = len(batch.image_views), batch.image_ids.device
    of_views = batch.pixels * views if len(batch.pixels) == 1 else batch.pixels
    if isinstance(model.picture_rules.resize, PatchCanvas):  # shown whole: see `checks.check_trains`
        pooled = torch.cat([model.image(**model.whole_pictures(pixels[rows])) for pixels in of_views])
        return _features(model.image, pooled, views, losses.image_text > 0, losses.image_image > 0)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):  # coordinates need float32
        draws = [view.rows(rows).to(device) for view in batch.image_views]
        shown = [
            model.normalise(apply_views(pixels[rows], draw, model.view_side(draw.size)))
            for pixels, draw in zip(of_views, draws, strict=True)
        ]
        passes = [(view, draw.patch_dropout) for view, draw in zip(shown, draws, strict=True)]
        if len({(view.shape, dropout) for view, dropout in passes}) == 1:
            passes = [(torch.cat(shown), passes[0][1])]
    pooled = torch.cat([model.image(pixel_values=view, patch_dropout=dropout) for view, dropout in passes])
    return _features(model.image, pooled, views, losses.image_text > 0, losses.image_image > 0)


def text_features(model: TwoTower, batch: Batch, rows: slice, losses: Losses) -> Features:
    """Features of some texts, all views together."""
    views = [view.rows(rows) for view in batch.text_views]
    pooled = model.text.encode(_stacked(views))  # [V * T, H]
    return _features(model.text, pooled, len(views), losses.image_text > 0, losses.text_text > 0)


def _features(tower: Tower, pooled: Tensor, views: int, cross: bool, uni: bool) -> Features:
    """What the losses want of pooled features [V * N, H]."""
    return Features(
        _by_item(tower.embed(pooled), views) if cross else None,
        _by_item(tower.embed_uni(pooled), views) if uni else None,
    )


def _stacked(views: Sequence[Tokens]) -> Tokens:
    """Texts of all views, one view after another, padded alike."""
    longest = max(view.ids.shape[1] for view in views)
    ids, mask = (
        torch.cat([F.pad(table, (0, longest - table.shape[1])) for table in tables])
        for tables in ([view.ids for view in views], [view.mask for view in views])
    )  # [V * T, L]
    return Tokens(ids, mask, np.concatenate([view.lengths for view in views]))


def _by_item(rows: Tensor, views: int) -> Tensor:
    """[V * N, D] -> [N, V, D]"""
    return rows.unflatten(0, (views, -1)).transpose(0, 1)


def joined_features(parts: Sequence[Features]) -> Features:
    """The features of all micro-batches."""

    def whole(tensors: Sequence[Tensor | None]) -> Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(present) if len(present) > 1 else next(iter(present), None)

    return Features(whole([part.cross for part in parts]), whole([part.uni for part in parts]))
