"""What can be wrong with a run, found before it begins or while it goes, each said in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from unicross.config import Losses, Recipe
from unicross.errors import DataError, RecipeError, TrainingError
from unicross.model import TwoTower
from unicross.training.dataset import Dataset

NO_LEARNING = 0.02
"""Mean image-text loss this near ln(batch size) after an epoch: nothing was learned."""
LOOKED_AT = 10
"""Steps at the end of an epoch over which that mean is taken."""


def check_recipe_fits(recipe: Recipe, data: Dataset, model: TwoTower) -> None:
    """Raise DataError for losses that the data cannot feed, RecipeError for views that cannot be made."""
    drops = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.text.backbone.modules())
    for stage in recipe.stages:
        missing = _unfed(stage.losses, data)
        if missing:
            raise DataError(
                f"stage {stage.name!r} wants the losses {', '.join(missing)}, but {recipe.data.root} holds "
                "fewer than two items for them: give captions and images, or set their weight to 0"
            )
        if stage.losses.text_text > 0 and stage.views.text == "dropout" and not drops:
            raise RecipeError(
                f"stage {stage.name!r}: views.text=dropout needs a text tower with dropout, and this one has "
                "none: set model.dropout=0.1, or views.text=sibling"
            )


def check_finite(losses: Mapping[str, float], step: int, stage: str) -> None:
    """Raise TrainingError where a loss is not finite."""
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"step {step} of stage {stage!r}: the {', '.join(bad)} loss is not finite. Lower optim.image_lr "
            "and optim.text_lr, lengthen optim.warmup, or train with train.precision=fp32; "
            "--resume goes on from the last checkpoint"
        )


def nothing_learned(image_text: Sequence[float], batch: int) -> str | None:
    """A sentence where an epoch's image-text losses stay at chance for batches of `batch` pairs."""
    last = image_text[-LOOKED_AT:]
    if len(last) < LOOKED_AT or abs(sum(last) / LOOKED_AT - math.log(batch)) >= NO_LEARNING:
        return None
    return (
        f"the image-text loss stays at {sum(last) / LOOKED_AT:.2f}, ln(batch size): nothing is matched yet. "
        "Check that captions belong to their images; otherwise lower the learning rates or train longer"
    )


def _unfed(losses: Losses, data: Dataset) -> list[str]:
    pairs, images, texts = len(data.pairs), len(data.images_alone), len(data.texts_alone)
    have = {"image_text": pairs, "image_image": pairs + images, "text_text": pairs + texts}
    return [name for name, count in have.items() if getattr(losses, name) > 0 and count < 2]
