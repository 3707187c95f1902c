"""Fitting the cross heads to the towers as they are, before anything else moves.

Random heads send random gradients into pretrained towers until they have found each other, which spoils some
of what the towers know (Kumar et al. 2022, "LP-FT": linear probing, then fine-tuning). Towers that stand
still need to see each picture and caption once; on kept features an epoch costs next to nothing.

Letters: N pairs, C captions of them, B batch, H a tower's width, D the shared space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from unicross.batches import Indices
from unicross.data.turns import parts_of
from unicross.losses import cross_modal
from unicross.model import TwoTower
from unicross.model.parts import MAX_SCALE
from unicross.progress import track
from unicross.streams import draw_seed
from unicross.training.dataset import Dataset
from unicross.training.distributed import broadcast_object
from unicross.training.embedding import embed_captions, embed_images
from unicross.training.optim import warmup_cosine
from unicross.training.sharding import full_tensors, reshard, shard_like

MOST_PAIRS = 20_000
"""More than so many say nothing new to a linear map; a sample of them is seen."""
BATCH, EPOCHS, LEAST_STEPS, WARMUP = 1024, 80, 200, 20
RATE, DECAY, DROPOUT = 3e-3, 0.01, 0.3
"""Tuned on Flickr8k (docs/log.md). Without dropout on the features, small data are learned by heart."""

Floats = NDArray[np.float32]


def fit_heads(model: TwoTower, data: Dataset, rng: np.random.Generator) -> dict[str, int]:
    """Move the model's cross heads and temperature to where its towers, as they are, meet best.

    Returns:
        Forwards spent ({"image": ..., "text": ...}): each picture seen whole, each caption, once.
    """
    pairs = data.pairs
    if len(pairs) > MOST_PAIRS:
        pairs = np.sort(rng.choice(pairs, MOST_PAIRS, replace=False))
    images, of_image = parts_of(data.items.first_image, data.items.image_counts, pairs)
    captions, of_caption = parts_of(data.items.first, data.items.counts, pairs)
    image = embed_images(model, data, images, pooled=True)
    text = embed_captions(model, data, captions, pooled=True)
    first_image, first = (
        np.searchsorted(of_part, np.arange(len(pairs))) for of_part in (of_image, of_caption)
    )
    reshard(model)
    moved: dict[str, Tensor] = {"log_scale": model.log_scale}
    for name, head in (("image", model.image.cross), ("text", model.text.cross)):
        moved |= {f"{name}.{part}": parameter for part, parameter in head.named_parameters()}
    start = full_tensors(moved)
    image_turns = first_image, data.items.image_counts[pairs]
    text_turns = first, data.items.counts[pairs]
    fitted = broadcast_object(lambda: _fitted(start, image, text, image_turns, text_turns, model.device, rng))
    with torch.no_grad():
        for name, parameter in moved.items():
            parameter.copy_(shard_like(fitted[name], parameter))
    return {"image": len(images), "text": len(captions)}


def _fitted(
    start: Mapping[str, Tensor],
    image: Floats,
    text: Floats,
    of_images: tuple[Indices, Indices],
    of_texts: tuple[Indices, Indices],
    device: torch.device,
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """The heads `image.weight` and `text.weight` [D, H], their biases [D] where they have any, and the
    `log_scale` of the temperature, on the host, from `start`.

    `image` [P, H], `text` [C, H]; of both, item i has the rows from the first number [N] on, as many as the
    second says [N].
    """
    (first_image, image_counts), (first, counts) = of_images, of_texts
    several, number = bool((image_counts > 1).any()), len(counts)
    dropped = torch.Generator(device).manual_seed(draw_seed(rng))
    images, texts = torch.from_numpy(image).to(device), torch.from_numpy(text).to(device)
    moved = {name: value.detach().to(device, copy=True).requires_grad_() for name, value in start.items()}
    matrices = [value for value in moved.values() if value.ndim > 1]
    others = [value for value in moved.values() if value.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}], lr=RATE
    )
    size = min(BATCH, number)
    steps = max(EPOCHS * number // size, LEAST_STEPS)
    for step in track("fitting heads", range(steps), steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * warmup_cosine(step, WARMUP, steps)
        items = rng.choice(number, size, replace=False)
        chosen = first[items] + rng.integers(0, counts[items])
        shown = first_image[items] + (rng.integers(0, image_counts[items]) if several else 0)
        image_features = _with_dropout(images[torch.from_numpy(shown).to(device)], dropped)
        text_features = _with_dropout(texts[torch.from_numpy(chosen).to(device)], dropped)
        ids = torch.arange(size, device=device)
        image_losses, text_losses = cross_modal(
            F.normalize(F.linear(image_features, moved["image.weight"], moved.get("image.bias")), dim=-1),
            F.normalize(F.linear(text_features, moved["text.weight"], moved.get("text.bias")), dim=-1),
            ids,
            ids,
            moved["log_scale"].clamp(max=math.log(MAX_SCALE)).exp(),
        )
        optimizer.zero_grad()
        (image_losses.mean() + text_losses.mean()).div(2).backward()
        optimizer.step()
    return {name: value.detach().cpu() for name, value in moved.items()}


def _with_dropout(features: Tensor, generator: torch.Generator) -> Tensor:
    kept = torch.rand(features.shape, generator=generator, device=features.device) >= DROPOUT
    return features * kept
