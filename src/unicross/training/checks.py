"""What can be wrong with a run, found before it begins or while it goes, each said in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import torch

from unicross.config import Recipe
from unicross.data.formats.rows import CAPTION_COLUMNS, IMAGE_COLUMNS
from unicross.data.items import Items
from unicross.data.preparation import PatchCanvas
from unicross.data.tokens import CaptionTokens
from unicross.errors import DataError, RecipeError, TrainingError
from unicross.model import TwoTower
from unicross.stage import ImageView, Losses, Stage
from unicross.training.dataset import Dataset
from unicross.training.sharding import reshard
from unicross.wording import counted

NO_LEARNING = 0.02
"""Mean image-text loss this near chance, ln(1 + negatives), after an epoch: nothing was learned."""
MANY_CUT = 0.01
"""Share of captions that may be cut without a word."""
LOOKED_AT = 10
"""Steps at the end of an epoch over which that mean is taken, at most; fewer than three say nothing."""
WHOLE = ImageView(crop=(1.0, 1.0), flip=0.0)
"""The view that changes nothing."""


def check_trains(recipe: Recipe, model: TwoTower) -> None:
    """Raise RecipeError for views of a pair whose pictures are only shown whole, or one without heads to
    fit."""
    if isinstance(model.picture_rules.resize, PatchCanvas):
        _check_whole(recipe)
    towers = {"image_head": model.image, "text_head": model.text}
    linear = {head for head, tower in towers.items() if isinstance(tower.cross, torch.nn.Linear)}
    for stage in recipe.stages:
        if stage.fit_heads and linear <= set(stage.freeze):
            raise RecipeError(
                f"stage {stage.name!r}: fit_heads moves linear heads, and this pair has "
                f"{'none that is not frozen' if linear else 'none'}: leave it out"
            )


def _check_whole(recipe: Recipe) -> None:
    if recipe.data.cache_size is not None or any(
        view != WHOLE for stage in recipe.stages for view in stage.image_views
    ):
        raise RecipeError(
            f"{recipe.model.pair}: this SigLIP 2 sees pictures in their own proportions (NaFlex) and is "
            "trained on whole ones: set views.image.crop=[1,1] views.image.flip=0, and leave out other "
            "changes of them and data.cache_size"
        )


def check_recipe_fits(recipe: Recipe, data: Dataset, val: Dataset | None, model: TwoTower) -> None:
    """Raise DataError for losses that the data cannot feed or validation without pairs, RecipeError for
    views that cannot be made.
    """
    if val is not None and not len(val.pairs):
        raise DataError(
            f"none of the {len(val.items)} validation items in {recipe.data.root} has both an image and a "
            f"caption ({_holdings(val)}): name another split with data.split.val=..., or none with "
            "data.split.val=null"
        )
    drops = any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.text.backbone.modules())
    for stage in recipe.stages:
        if stage.losses.objective == "sigmoid" and model.bias is None:
            raise RecipeError(
                f"stage {stage.name!r}: the sigmoid loss has a bias and this pair has none: set "
                f"model.bias=-10"
            )
        missing = _unfed(stage.losses, data)
        if missing:
            raise DataError(
                f"stage {stage.name!r} wants the losses {', '.join(missing)}, but {recipe.data.root} holds "
                f"fewer than two items for them ({_holdings(data)}): give captions and images, or set their "
                "weight to 0"
            )
        if stage.losses.text_text > 0 and stage.views.text == "dropout" and not drops:
            raise RecipeError(
                f"stage {stage.name!r}: views.text=dropout needs a text tower with dropout, and this one has "
                "none: set model.dropout=0.1, or views.text=sibling"
            )
        if any(view.patch_dropout > 0 for view in stage.image_views) and not _can_drop_patches(model):
            raise RecipeError(
                f"stage {stage.name!r}: the image tower cannot do without some of its patches: leave "
                "patch_dropout out of views.image and views.image_uni"
            )


def for_items(recipe: Recipe, items: Items) -> tuple[Recipe, list[str]]:
    """The recipe without what it wants only for items of several images, of several captions, or of captions
    of several kinds (`views.remembered`, `views.image_uni: null`, `views.text: kind`), where there are none;
    and a sentence for each.

    Raises RecipeError where a stage would have no loss left.
    """
    stages, notes = [], list[str]()
    for stage in recipe.stages:
        of_images, of_texts = _without_siblings(stage, items)
        losses = stage.losses
        if not any(
            (losses.image_text, losses.image_image * (not of_images), losses.text_text * (not of_texts))
        ):
            raise RecipeError(
                f"stage {stage.name!r} compares images, or texts, of an item with each other, and no item "
                "has several: say which images are of one item (data.item) and in which columns its captions "
                "are (data.caption), or how second views are made (views.image_uni, views.text)"
            )
        notes += [note for note in (of_images, of_texts) if note is not None and note not in notes]
        stages.append(stage.without(images=of_images is not None, texts=of_texts is not None))
    return recipe.model_copy(update={"stages": tuple(stages)}), notes


def _without_siblings(stage: Stage, items: Items) -> tuple[str | None, str | None]:
    """What a stage does without, of images and of texts, since no item has several: a sentence for each, or
    None."""
    of_images = of_texts = None
    losses, views = stage.losses, stage.views
    made = views.image_uni is not None and not views.remembered  # a second view of one image
    if (losses.image_image > 0 or views.images > 1) and not made and not (items.image_counts > 1).any():
        of_images = "no item has several images: there is no image-image loss, and each item shows one image"
    if losses.text_text > 0 or views.captions > 1:
        lost = "there is no text-text loss, and each item shows one caption"
        if views.remembered and not (items.counts > 1).any():
            of_texts = f"no item has several captions: {lost}"
        if views.text == "kind" and not items.has_several_kinds:
            of_texts = f"no item has captions in several languages or of several fields: {lost}"
    return of_images, of_texts


def check_finite(figures: Mapping[str, float], step: int, stage: str) -> None:
    """Raise TrainingError where a loss or the norm of the gradient is not finite."""
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"step {step} of stage {stage!r}: not finite: {', '.join(bad)}. Lower optim.image_lr, "
            "optim.text_lr and optim.head_lr, lengthen optim.warmup, or train with train.precision=fp32, "
            "in a new run"
        )


def notes_before(recipe: Recipe, model: TwoTower, captions: CaptionTokens, processes: int) -> list[str]:
    """Sentences for the user before the first step."""
    notes = []
    if processes > 1 and recipe.data.cache == "memory":
        notes.append(f"{processes} processes keep all decoded pictures each: data.cache=disk shares one copy")
    if processes == 1 and recipe.train.shard:
        notes.append("train.shard has no effect on a single process: start several with torchrun")
    cut = cut_captions(captions.full, len(captions), model.max_tokens)
    return [*notes, cut] if cut else notes


def cut_captions(full: int, captions: int, max_tokens: int) -> str | None:
    """A sentence where more than one caption in a hundred is as long as is kept, so probably cut."""
    share = full / captions if captions else 0.0
    if share <= MANY_CUT:
        return None
    return (
        f"{share:.0%} of the captions have {max_tokens} tokens or more, and what is beyond is not read: "
        "data.max_tokens=... reads more"
    )


def nothing_learned(image_text: Sequence[float], batch: int, stage: Stage) -> str | None:
    """A sentence where an epoch's image-text losses stay at chance for batches of `batch` pairs."""
    others = max(batch, stage.batches.negatives_from or 0) - 1
    chance = mean(math.log(1 + others * views) for views in (1, stage.views.captions))
    last = image_text[-LOOKED_AT:]
    if len(last) < 3 or abs(mean(last) - chance) >= NO_LEARNING:
        return None
    return (
        f"the image-text loss stays at {mean(last):.2f}, which is chance: nothing is matched yet. "
        "Check that captions belong to their images; otherwise lower the learning rates or train longer"
    )


def _can_drop_patches(model: TwoTower) -> bool:
    side = model.config.image_size
    try:
        with torch.no_grad():
            model.image(pixel_values=torch.zeros(1, 3, side, side, device=model.device), patch_dropout=0.5)
    except (RuntimeError, ValueError):  # rotary positions of all patches; not one module of embeddings
        return False
    finally:
        reshard(model)  # the optimiser takes what it finds
    return True


def _holdings(data: Dataset) -> str:
    pairs, images, texts = len(data.pairs), len(data.images_only), len(data.texts_only)
    there = f"{counted(pairs, 'pair')}, {images} images only, {texts} texts only"
    if pairs == texts == 0:
        there += f"; a table's captions are looked for in a column called {', '.join(CAPTION_COLUMNS)}"
    if pairs == images == 0:
        there += f"; a table's images are looked for in a column called {', '.join(IMAGE_COLUMNS)}"
    return there


def _unfed(losses: Losses, data: Dataset) -> list[str]:
    pairs, images, texts = len(data.pairs), len(data.images_only), len(data.texts_only)
    have = {"image_text": pairs, "image_image": pairs + images, "text_text": pairs + texts}
    return [name for name, count in have.items() if getattr(losses, name) > 0 and count < 2]
