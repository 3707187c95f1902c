"""Fitting the cross heads to the towers as they are, before anything else moves.

Random heads send random gradients into pretrained towers until they have found each other, which spoils some
of what the towers know (Kumar et al. 2022, "LP-FT": linear probing, then fine-tuning). Towers that stand
still need to see each picture and caption once; on kept features an epoch costs next to nothing.

Letters: N pairs, C captions of them, B batch, H a tower's width, D the shared space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from unicross.batches import Indices
from unicross.canonical import Pairs, canonical_heads
from unicross.data.turns import parts_of
from unicross.losses import Objective, cross_modal
from unicross.matching import mutual_matches
from unicross.model import TwoTower
from unicross.progress import track
from unicross.streams import draw_seed
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object
from unicross.training.embedding import embed_captions, embed_images
from unicross.training.optim import warmup_cosine
from unicross.training.sharding import full_tensors, reshard, shard_like

MOST_PAIRS, MOST_ALONE = 20_000, 10_000
"""More pairs, or images only, or texts only, say nothing new to a linear map; a sample of them is seen."""
BATCH, EPOCHS, LEAST_STEPS, WARMUP = 1024, 80, 200, 20
RATE, DECAY, DROPOUT = 3e-3, 0.01, 0.3
"""Tuned on Flickr8k (docs/log.md). Without dropout on the features, small data are learned by heart."""
FEW, DROPOUT_OF_FEW = 1000, 0.5
"""Of new heads, where there are fewer pairs."""
TOWERS = ("image", "text")
ROUNDS = 3
"""How often pictures and texts alone are matched for better heads."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """What a tower makes of the pictures or captions of items, before its head."""

    rows: Floats
    """[R, H]"""
    first: Indices
    """[N]: the first row of each item."""
    counts: Indices
    """[N]: how many rows each item has."""

    @classmethod
    def of(cls, rows: Floats, owner: Indices) -> Features:
        """Of rows by the item [R] that each is of, ascending."""
        _, first, counts = np.unique(owner, return_index=True, return_counts=True)
        return cls(rows, first, counts)

    def means(self) -> Floats:
        """[N, H]"""
        sums = np.add.reduceat(self.rows, self.first)
        return np.asarray(sums / self.counts[:, None], np.float32)

    def and_of(self, other: Features, items: Indices) -> Features:
        """These, and after them the rows of some items of others."""
        rows, owner = parts_of(other.first, other.counts, items)
        more = Features.of(other.rows[rows], owner)
        return Features(
            np.concatenate([self.rows, more.rows]),
            np.concatenate([self.first, len(self.rows) + more.first]),
            np.concatenate([self.counts, more.counts]),
        )


def fit_heads(
    model: TwoTower,
    data: Dataset,
    rng: np.random.Generator,
    objective: Objective = "infonce",
    *,
    new: bool = False,
    match: bool = False,
) -> tuple[dict[str, int], int]:
    """Move what is not frozen of the model's cross heads and temperature to where its towers, as they are,
    meet best. A head that is frozen, or none, is met by the other.

    Args:
        new: whether both heads are random, so that there is nothing of them to keep: they begin as canonical
            directions.
        match: whether pictures and texts without each other are matched by new heads, and fitted too.

    Returns:
        Forwards spent ({"image": ..., "text": ...}), each picture seen whole, each caption, once; and how
        many pictures were matched.
    """
    moving = {name for name, parameter in _parameters(model).items() if parameter.requires_grad}
    new = new and {"image.weight", "text.weight"} <= moving
    pairs = _read(model, data, _sample(data.pairs, MOST_PAIRS, rng))
    alone = None
    if new and match and data.has_unpaired:
        images, texts = (_sample(items, MOST_ALONE, rng) for items in (data.images_only, data.texts_only))
        alone = _read(model, data, np.concatenate([images, texts]))
    reshard(model)
    parameters = _parameters(model)  # only now: what a pass has gathered is not what is kept
    start = full_tensors(parameters)

    def fitted() -> tuple[dict[str, Tensor], int]:
        seen: Mapping[str, Features] = pairs
        if new:
            begin, seen = _begin(len(start["image.weight"]), pairs, alone, rng)
            if all(weight.any() for weight in begin.values()):  # not where all pictures, or texts, are alike
                start.update(begin)
        number = len(pairs["image"].first)
        dropout = DROPOUT_OF_FEW if new and number < FEW else DROPOUT
        moved = _moved(start, moving, seen, objective, model.max_scale, model.device, dropout, rng)
        return moved, len(seen["image"].first) - number

    tensors, matched = broadcast_object(fitted)
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(shard_like(tensor, parameters[name]))
    read = (pairs, alone) if alone else (pairs,)
    return {tower: sum(len(of[tower].rows) for of in read) for tower in TOWERS}, matched


def _sample(items: Indices, most: int, rng: np.random.Generator) -> Indices:
    """So many of the items at most."""
    return items if len(items) <= most else np.sort(rng.choice(items, most, replace=False))


def _read(model: TwoTower, data: Dataset, items: Indices) -> Mapping[str, Features]:
    """What the towers make of all pictures and captions of items."""
    images, of_image = parts_of(data.items.first_image, data.items.image_counts, items)
    captions, of_caption = parts_of(data.items.first, data.items.counts, items)
    return {
        "image": Features.of(embed_images(model, data, images, pooled=True), of_image),
        "text": Features.of(embed_captions(model, data, captions, pooled=True), of_caption),
    }


def _begin(
    dim: int, pairs: Mapping[str, Features], alone: Mapping[str, Features] | None, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Mapping[str, Features]]:
    """New heads in closed form, and the pairs, with those that such heads made of what is `alone`."""
    seen = pairs
    found = _canonical(dim, seen, rng)
    if alone is None:
        return found, seen
    for _ in range(ROUNDS):
        matched = mutual_matches(*(_vectors(alone[tower], found[f"{tower}.weight"]) for tower in TOWERS))
        seen = {
            tower: pairs[tower].and_of(alone[tower], of) for tower, of in zip(TOWERS, matched, strict=True)
        }
        found = _canonical(dim, seen, rng)
    return found, seen


def _canonical(dim: int, seen: Mapping[str, Features], rng: np.random.Generator) -> dict[str, Tensor]:
    images, texts = (Pairs(seen[tower].rows, seen[tower].means()) for tower in TOWERS)
    image, text = canonical_heads(images, texts, dim, rng)
    return {"image.weight": image, "text.weight": text}


def _vectors(shown: Features, weight: Tensor) -> Floats:
    """Unit vectors of items by a head [D, H]: [N, D]"""
    return F.normalize(torch.from_numpy(shown.means()) @ weight.T, dim=1).numpy()


def _parameters(model: TwoTower) -> dict[str, nn.Parameter]:
    """`image.weight` and `text.weight` [D, H] and their `.bias` [D] of linear heads, `log_scale`, and the
    scores' `bias` of a sigmoid loss; what there is of them."""
    found = {"log_scale": model.log_scale}
    if model.bias is not None:
        found["bias"] = model.bias
    for name, head in (("image", model.image.cross), ("text", model.text.cross)):
        if isinstance(head, nn.Linear):
            found |= {f"{name}.{part}": parameter for part, parameter in head.named_parameters()}
    return found


def _moved(
    start: Mapping[str, Tensor],
    moving: Set[str],
    features: Mapping[str, Features],
    objective: Objective,
    max_scale: float,
    device: torch.device,
    dropout: float,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Where those parameters end, on the host, that are `moving` from `start`; see `_parameters`."""
    dropped = torch.Generator(device).manual_seed(draw_seed(rng))
    at = {
        name: value.detach().to(device, copy=True).requires_grad_(name in moving)
        for name, value in start.items()
    }
    matrices = [at[name] for name in sorted(moving) if at[name].ndim > 1]
    others = [at[name] for name in sorted(moving) if at[name].ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}], lr=RATE
    )
    rows = {name: torch.from_numpy(shown.rows).to(device) for name, shown in features.items()}
    number = len(features["image"].first)
    size = min(BATCH, number)
    ids = torch.arange(size, device=device)
    steps = max(EPOCHS * number // size, LEAST_STEPS)
    for step in track("fitting heads", range(steps), steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * warmup_cosine(step, WARMUP, steps)
        items = rng.choice(number, size, replace=False)
        drawn = {name: torch.from_numpy(_drawn(features[name], items, rng)) for name in ("text", "image")}
        image, text = (
            _embedded(
                rows[name][drawn[name].to(device)],
                at.get(f"{name}.weight"),
                at.get(f"{name}.bias"),
                dropout,
                dropped,
            )
            for name in ("image", "text")
        )
        image_losses, text_losses = cross_modal(
            image,
            text,
            ids,
            ids,
            at["log_scale"].clamp(max=math.log(max_scale)).exp(),
            bias=at.get("bias", 0.0),
            objective=objective,
        )
        optimizer.zero_grad()
        (image_losses.mean() + text_losses.mean()).div(2).backward()
        optimizer.step()
    return {name: at[name].detach().cpu() for name in moving}


def _drawn(shown: Features, items: Indices, rng: np.random.Generator) -> Indices:
    """A row of each item."""
    return shown.first[items] + rng.integers(0, shown.counts[items])


def _embedded(
    rows: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dropout: float,
    generator: torch.Generator,
) -> Tensor:
    """Unit vectors [B, D] that a head, or none, makes of features [B, H] with dropout.

    The features count as unit vectors, as what moves them is one rate for all towers; a bias has the share
    that it has beside them as they are.
    """
    features = _with_dropout(F.normalize(rows, dim=-1), dropout, generator)
    if weight is None:
        return F.normalize(features, dim=-1)
    made = F.linear(features, weight)
    if bias is not None:
        made = made + bias / rows.norm(dim=-1, keepdim=True)
    return F.normalize(made, dim=-1)


def _with_dropout(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    kept = torch.rand(features.shape, generator=generator, device=features.device) >= share
    return features * kept / (1 - share)
