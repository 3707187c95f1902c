"""What a run costs, so that recipes can be compared at equal compute.

The unit is a tower forward, weighted by the tower's multiply-adds. A forward with its backward counts
three, one without (a frozen tower, embedding for clusters) counts one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from unicross.data.preparation import PatchCanvas
from unicross.model import TwoTower
from unicross.model.tower import Tower
from unicross.stage import Stage

LAYER = re.compile(r"layers?\.\d+\.")
BACKWARD = 2
"""Cost of a backward pass in forwards."""


@dataclass(frozen=True, slots=True)
class TowerCost:
    """GFLOP of one forward of one image and of one text."""

    image: float
    text: float

    def of(self, forwards: Mapping[str, float]) -> float:
        """GFLOP of so many forwards of each."""
        return self.image * forwards["image"] + self.text * forwards["text"]


def tower_cost(model: TwoTower, text_tokens: float) -> TowerCost:
    """Twice the weights of the layers for each token; `text_tokens` is the mean length of a caption."""

    def layer_weights(tower: Tower) -> int:
        backbone = tower.backbone
        # Of numbered layers alone: peft calls a table of words `base_layer`, which multiplies nothing.
        once = sum(p.numel() for name, p in backbone.named_parameters() if LAYER.search(name) and p.ndim >= 2)
        groups = getattr(backbone.config, "num_hidden_groups", None)  # ALBERT's layers share weights
        return once * int(backbone.config.num_hidden_layers) // groups if groups else once

    if model.image.prefix is None:
        of_image = _counted(model)
    else:
        tokens = (model.picture_rules.side // model.image.patch) ** 2 + model.image.prefix
        of_image = 2e-9 * layer_weights(model.image) * tokens
    return TowerCost(
        image=of_image,
        text=2e-9 * layer_weights(model.text) * text_tokens,
    )


def _counted(model: TwoTower) -> float:
    """GFLOP of one forward of a picture through a tower without patches, whose weights meet no fixed
    tokens."""
    rules = model.picture_rules
    square = torch.zeros(1, rules.side, rules.side, 3, dtype=torch.uint8)
    if isinstance(rules.resize, PatchCanvas):  # whose shape must be told
        picture = Image.new("RGB", (rules.side, rules.side))
        square = torch.from_numpy(rules.resize.square(picture, rules.side))[None]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.image(**model.whole_pictures(square.to(model.device)))
    return 1e-9 * counter.get_total_flops()


def step_forwards(stage: Stage, images: int, texts: int, model: TwoTower) -> dict[str, float]:
    """Forwards of one training step of `images` and `texts`, a backward counted as two more.

    A view of an image counts as the share of the model's patches that pass the tower.
    """
    whole = model.config.image_size
    patches = [
        (model.view_side(view.size) / whole) ** 2 * (1 - view.patch_dropout) for view in stage.image_views
    ]
    views = {
        "image": images * sum(patches),
        "text": texts * stage.text_views,
    }
    return {tower: n * (1 if tower in stage.freeze else 1 + BACKWARD) for tower, n in views.items()}
