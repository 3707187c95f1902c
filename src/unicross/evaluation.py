"""The retrieval protocol of the field: every caption of every image, both ways, ties against the model.

Only pairs count: items with an image and at least one caption are the gallery and the queries; images alone
and texts alone are left out. All captions of an image are used.

i2t: an image finds any of its captions. t2i: a caption finds its image. t2t: a caption finds a sibling
caption of its image, itself left out (images with one caption ask nothing; where more than SIBLING_QUERIES
captions could ask, a seeded sample of them asks). i2i: a fixed, seeded picture of the picture (half to 70 %
of it, perhaps mirrored, other colours) finds its own picture.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from unicross.data.images import AnyImage, decode
from unicross.data.items import ImageSource, Items
from unicross.errors import DataError
from unicross.files import write_text
from unicross.metrics import (
    RECALL_AT,
    Floats,
    Ints,
    Ranking,
    mean_average_precision,
    mean_rank,
    median_rank,
    r_sum,
    rank,
    recall_at,
)

SIBLING_QUERIES = 50_000
"""Most captions that ask in t2t, whose cost would grow with their square. Recalls of so many have a standard
error of at most 0.22."""


class Encoder(Protocol):
    """What evaluation needs of a model: unit embeddings [N, D] of pictures and of texts."""

    def encode_images(self, images: Sequence[AnyImage], batch_size: int = ...) -> Floats: ...

    def encode_texts(self, texts: Sequence[str], batch_size: int = ...) -> Floats: ...


@dataclass(frozen=True)
class Result:
    """Metrics, and what each query found, so that results can be compared query by query.

    With folds, ranks and rivals are those within each image's fold.
    """

    metrics: dict[str, float]
    """`i2t/R@1` and the like in percent; `i2t/median_rank`, `i2t/mean_rank`; `i2t/mAP` in percent; `rsum`."""
    image_ids: tuple[str, ...]
    """[N]"""
    text_image: Ints
    """[M]: position of each caption's image; the captions of an image in their order."""
    i2t_ranks: Ints
    """[N]"""
    t2i_ranks: Ints
    """[M]"""
    i2t_rival: Ints
    """[N]: the wrong caption that scores highest, -1 where there is none."""
    t2i_rival: Ints
    """[M]: the wrong image that scores highest, -1 where there is none."""
    i2t_margin: Floats
    """[N]: score of the best right caption less that of the rival; negative where the model is wrong."""
    t2i_margin: Floats
    """[M]"""
    folds: int = 1

    @property
    def n_images(self) -> int:
        return len(self.i2t_ranks)

    @property
    def n_captions(self) -> int:
        return len(self.t2i_ranks)

    def save(self, path: Path) -> None:
        """Write as JSON, beside and renamed."""
        data = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in dataclasses.asdict(self).items()
        }
        for name in ("i2t_margin", "t2i_margin"):
            data[name] = [round(margin, 5) if np.isfinite(margin) else None for margin in data[name]]
        write_text(path, json.dumps(data, separators=(",", ":"), allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what `save` wrote. Raises DataError for a file that is not a result."""
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for name in ("text_image", "i2t_ranks", "t2i_ranks", "i2t_rival", "t2i_rival"):
                data[name] = np.array(data[name], dtype=np.int64)
            for name in ("i2t_margin", "t2i_margin"):
                data[name] = np.array([np.inf if m is None else m for m in data[name]], dtype=np.float32)
            return cls(**{**data, "image_ids": tuple(data["image_ids"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a saved evaluation: {error}; delete it and evaluate again"
            ) from error


def evaluate(
    model: Encoder,
    items: Items,
    *,
    folds: int = 1,
    batch_size: int = 64,
    text_batch: int = 256,
    seed: int = 0,
) -> Result:
    """All metrics, i2i among them, of a model on the pairs among `items`.

    `folds`: images are cut into so many consecutive, equally large parts, each evaluated alone, and metrics
    averaged (5 for COCO's 1K protocol). `seed` fixes the changed pictures of i2i.
    Raises DataError where there are no pairs, fewer than folds, or a picture cannot be decoded.
    """
    pairs = [item for item in items if item.is_pair]
    if not pairs:
        raise DataError(
            f"nothing to evaluate: none of {len(items)} items has both an image and a caption; "
            "check data.root and data.split.val"
        )
    pictures = [item.image for item in pairs if item.image is not None]
    texts = [caption for item in pairs for caption in item.captions]
    text_image = np.repeat(np.arange(len(pairs)), [len(item.captions) for item in pairs])
    images = model.encode_images(pictures, batch_size)  # [N, D]
    views = []
    for start in range(0, len(pictures), batch_size):
        some = enumerate(pictures[start : start + batch_size], start)
        views.append(model.encode_images([_changed(picture, (seed, i)) for i, picture in some], batch_size))
    return evaluate_embeddings(
        images,
        model.encode_texts(texts, text_batch),
        text_image,
        image_ids=[item.image_id for item in pairs],
        views=np.concatenate(views),
        folds=folds,
    )


def evaluate_embeddings(
    images: npt.NDArray[np.floating],
    texts: npt.NDArray[np.floating],
    text_image: npt.NDArray[np.integer],
    *,
    image_ids: Sequence[str] | None = None,
    views: npt.NDArray[np.floating] | None = None,
    folds: int = 1,
) -> Result:
    """All metrics of `images` [N, D] and `texts` [M, D], where `text_image` [M] is each text's image.

    i2i is there where `views` [N, D], embeddings of changed pictures, are given. `image_ids` [N] are kept in
    the result (default: positions). Raises DataError for an image without a text, for fewer images than
    folds, and for values that are not finite.
    """
    n = len(images)
    if n < folds or not n:
        raise DataError(f"cannot evaluate {n} images in {folds} folds: give more images or fewer folds")
    whole: dict[str, npt.NDArray[Any]] = {
        "i2t_ranks": np.zeros(n, np.int64),
        "t2i_ranks": np.zeros(len(texts), np.int64),
        "i2t_rival": np.zeros(n, np.int64),
        "t2i_rival": np.zeros(len(texts), np.int64),
        "i2t_margin": np.zeros(n, np.float32),
        "t2i_margin": np.zeros(len(texts), np.float32),
    }
    metrics: list[dict[str, float]] = []
    for of_images in np.array_split(np.arange(n), folds):
        of_texts = np.flatnonzero((text_image >= of_images[0]) & (text_image <= of_images[-1]))
        ids = text_image[of_texts]
        i2t = rank(images[of_images], texts[of_texts], of_images, ids)
        t2i = rank(texts[of_texts], images[of_images], ids, of_images)
        found = {**_summary("i2t", i2t), **_summary("t2i", t2i), "rsum": r_sum(i2t.ranks, t2i.ranks)}
        if views is not None:
            found |= _recalls("i2i", rank(views[of_images], images[of_images], of_images, of_images))
        metrics.append(found | _siblings(texts[of_texts], ids))
        for way, ranking, queries, keys in (
            ("i2t", i2t, of_images, of_texts),
            ("t2i", t2i, of_texts, of_images),
        ):
            whole[f"{way}_ranks"][queries] = ranking.ranks
            whole[f"{way}_rival"][queries] = np.where(ranking.rival < 0, -1, keys[ranking.rival])
            whole[f"{way}_margin"][queries] = ranking.score - ranking.rival_score
    shared = [key for key in metrics[0] if all(key in fold for fold in metrics)]
    return Result(
        metrics={key: float(np.mean([fold[key] for fold in metrics])) for key in shared},
        image_ids=tuple(image_ids) if image_ids is not None else tuple(str(i) for i in range(n)),
        text_image=np.asarray(text_image, dtype=np.int64),
        folds=folds,
        **whole,
    )


def _recalls(way: str, ranking: Ranking) -> dict[str, float]:
    return {f"{way}/R@{k}": recall_at(ranking.ranks, k) for k in RECALL_AT}


def _summary(way: str, ranking: Ranking) -> dict[str, float]:
    return _recalls(way, ranking) | {
        f"{way}/median_rank": median_rank(ranking.ranks),
        f"{way}/mean_rank": mean_rank(ranking.ranks),
        f"{way}/mAP": mean_average_precision(ranking),
    }


def _siblings(texts: npt.NDArray[np.floating], ids: npt.NDArray[np.integer]) -> dict[str, float]:
    """t2t recalls; nothing where no image has two captions."""
    asking = np.flatnonzero(np.isin(ids, np.flatnonzero(np.bincount(ids) > 1)))
    if not len(asking):
        return {}
    if len(asking) > SIBLING_QUERIES:
        asking = np.sort(np.random.default_rng(0).choice(asking, SIBLING_QUERIES, replace=False))
    return _recalls("t2t", rank(texts[asking], texts, ids[asking], ids, exclude=asking))


def _changed(picture: ImageSource, seed: tuple[int, int]) -> Image.Image:
    """The picture that asks in i2i; equal for equal seeds, whatever the model."""
    rng = np.random.default_rng(seed)
    image = decode(picture.read(), picture.name, at_least=512)
    area, aspect = rng.uniform(0.5, 0.7), np.exp(rng.uniform(-0.25, 0.25))
    wide, high = np.sqrt(area * aspect), np.sqrt(area / aspect)  # shares of the sides, both below 1
    left, top = rng.uniform(0, 1 - wide), rng.uniform(0, 1 - high)
    width, height = image.size
    box = (left * width, top * height, (left + wide) * width, (top + high) * height)
    size = (max(1, round(wide * width)), max(1, round(high * height)))
    cut = image.resize(size, Image.Resampling.BICUBIC, box)
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        cut = enhance(cut).enhance(rng.uniform(0.6, 1.4))
    return cut
