"""The retrieval protocol of the field: every caption of every image, both ways, ties against the model.

Only pairs count: items with an image and at least one caption are the gallery and the queries; images only
and texts only are left out. All captions of an image are used.

i2t: an image finds any of its captions. t2i: a caption finds its image. t2t: a caption finds a sibling
caption of its image, itself left out (images with one caption ask nothing; where more than SIBLING_QUERIES
captions could ask, a seeded sample of them asks). i2i: a fixed, seeded picture of the picture (half to 70 %
of it, perhaps mirrored, other colours) finds its own picture.

Where captions repeat (a catalogue's titles), the protocol counts a picture as wrong of which the very same
was said; recalls that count equal captions as right stand beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from unicross.batches import equal_pairs
from unicross.calibration import Calibration, fit_calibration
from unicross.data.images import IMAGES_AT_ONCE, AnyImage, decode
from unicross.data.items import ImageSource, Item, Items, text_numbers
from unicross.embed import Encoder, embed_images
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
    rank_keys,
    recall_at,
)

SIBLING_QUERIES = 50_000
"""Most captions that ask in t2t, whose cost would grow with their square. Recalls of so many have a standard
error of at most 0.22."""


@dataclass(frozen=True)
class Direction:
    """What each of Q queries of one modality found among the keys of the other.

    With folds, ranks and rivals are those within each image's fold.
    """

    ranks: Ints
    """[Q]: 1-based rank of the best right key."""
    rivals: Ints
    """[Q]: the wrong key that scores highest, -1 where there is none."""
    margins: Floats
    """[Q]: score of the best right key less that of the rival; negative where the model is wrong."""

    @classmethod
    def of(cls, queries: int) -> Direction:
        """For so many queries, to be filled."""
        return cls(np.zeros(queries, np.int64), np.zeros(queries, np.int64), np.zeros(queries, np.float32))

    def fill(self, queries: Ints, keys: Ints, ranking: Ranking) -> None:
        """Put in what a ranking of some of the queries among some of the keys found."""
        self.ranks[queries] = ranking.ranks
        self.rivals[queries] = np.where(ranking.rival < 0, -1, keys[ranking.rival])
        self.margins[queries] = ranking.score - ranking.rival_score

    def as_json(self) -> dict[str, list[Any]]:
        margins = [round(float(margin), 5) if np.isfinite(margin) else None for margin in self.margins]
        return {"ranks": self.ranks.tolist(), "rivals": self.rivals.tolist(), "margins": margins}

    @classmethod
    def from_json(cls, data: dict[str, list[Any]]) -> Direction:
        margins = [np.inf if margin is None else margin for margin in data["margins"]]
        return cls(
            np.array(data["ranks"], np.int64),
            np.array(data["rivals"], np.int64),
            np.array(margins, np.float32),
        )


@dataclass(frozen=True)
class Result:
    """Metrics, and what each query found, so that results can be compared query by query."""

    metrics: dict[str, float]
    """`i2t/R@1` and the like in percent; `i2t/median_rank`, `i2t/mean_rank`; `i2t/mAP` in percent; `rsum`.
    Where captions repeat, `i2t_equal/R@1` and the like: recalls that count equal captions as right."""
    image_ids: tuple[str, ...]
    """[N]"""
    text_image: Ints
    """[M]: position of each caption's image; the captions of an image in their order."""
    i2t: Direction
    """N images among M captions."""
    t2i: Direction
    """M captions among N images."""
    folds: int = 1
    calibration: Calibration | None = None
    """How likely a cosine of t2i is a match; None where it cannot be told. Not saved with the result."""

    @property
    def n_images(self) -> int:
        return len(self.i2t.ranks)

    @property
    def n_captions(self) -> int:
        return len(self.t2i.ranks)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        data = {
            "metrics": self.metrics,
            "image_ids": self.image_ids,
            "text_image": self.text_image.tolist(),
            "i2t": self.i2t.as_json(),
            "t2i": self.t2i.as_json(),
            "folds": self.folds,
        }
        write_text(path, json.dumps(data, separators=(",", ":"), allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what `save` wrote. Raises DataError for a file that is not a result."""
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                metrics=data["metrics"],
                image_ids=tuple(data["image_ids"]),
                text_image=np.array(data["text_image"], np.int64),
                i2t=Direction.from_json(data["i2t"]),
                t2i=Direction.from_json(data["t2i"]),
                folds=data["folds"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a saved evaluation: {error}; delete it and evaluate again"
            ) from error


def evaluate(
    model: Encoder, items: Sequence[Item], *, folds: int = 1, batch_size: int = IMAGES_AT_ONCE, seed: int = 0
) -> Result:
    """All metrics, i2i among them, of a model on the pairs among `items`.

    >>> evaluate(TwoTower.load("runs/mine"), load_items("photos", "val").items).metrics["rsum"]

    `folds`: images are cut into so many consecutive, equally large parts, each evaluated alone, and metrics
    averaged (5 for COCO's 1K protocol). `batch_size`: pictures that pass the model at a time. `seed` fixes
    the changed pictures of i2i. Raises DataError where there are no pairs, fewer than folds, or a picture
    cannot be decoded.
    """
    items = Items.of(items)
    pairs = items.select(np.flatnonzero(items.has_image & items.has_text))
    if not len(pairs):
        raise DataError(
            f"nothing to evaluate: none of {len(items)} items has both an image and a caption; "
            "check data.root and data.split.val"
        )
    pictures = [pairs.pictures[int(row)] for row in pairs.rows]
    images = _embedded(model, pictures, batch_size)  # [N, D]
    views = []
    for start in range(0, len(pictures), batch_size):
        batch = enumerate(pictures[start : start + batch_size], start)
        views.append(_embedded(model, [_changed(picture, (seed, i)) for i, picture in batch], batch_size))
    return evaluate_embeddings(
        images,
        model.encode_texts(pairs.texts.to_pylist()),
        np.repeat(np.arange(len(pairs)), pairs.counts),
        image_ids=pairs.ids.to_pylist(),
        numbers=text_numbers(pairs.texts),
        views=np.concatenate(views),
        folds=folds,
    )


def evaluate_embeddings(
    images: npt.NDArray[np.floating],
    texts: npt.NDArray[np.floating],
    text_image: npt.NDArray[np.integer],
    *,
    image_ids: Sequence[str] | None = None,
    numbers: Ints | None = None,
    views: npt.NDArray[np.floating] | None = None,
    folds: int = 1,
) -> Result:
    """All metrics of `images` [N, D] and `texts` [M, D], where `text_image` [M] is each text's image.

    `image_ids` [N] are kept in the result (default: positions). `numbers` [M], equal for equal texts, give
    the recalls that count equal captions as right. i2i is there where `views` [N, D], embeddings of changed
    pictures, are given. Raises DataError for an image without a text, for fewer images than folds, and for
    values that are not finite.
    """
    n = len(images)
    if n < folds or not n:
        raise DataError(f"cannot evaluate {n} images in {folds} folds: give more images or fewer folds")
    i2t, t2i = Direction.of(n), Direction.of(len(texts))
    equal = None if numbers is None else _equal_captions(numbers, text_image)
    metrics: list[dict[str, float]] = []
    scores: list[tuple[Floats, Floats]] = []
    for of_images in np.array_split(np.arange(n), folds):
        first = int(of_images[0])
        of_texts = np.flatnonzero((text_image >= first) & (text_image <= of_images[-1]))
        fold_images, fold_texts = images[of_images], texts[of_texts]
        owner = (text_image[of_texts] - first).astype(np.int64)
        position = np.arange(len(of_images))
        from_images = rank_keys(fold_images, fold_texts, position, owner)
        from_texts = rank_keys(fold_texts, fold_images, owner, position)
        i2t.fill(of_images, of_texts, from_images)
        t2i.fill(of_texts, of_images, from_texts)
        scores.append((from_texts.score, from_texts.rival_score))
        in_fold = _summary("i2t", from_images) | _summary("t2i", from_texts)
        in_fold["rsum"] = r_sum(from_images.ranks, from_texts.ranks)
        if equal is not None:
            in_fold |= _equal_recalls(fold_images, fold_texts, owner, _inside(equal, of_texts))
        if views is not None:
            in_fold |= _recalls("i2i", rank_keys(views[of_images], fold_images, position, position))
        metrics.append(in_fold | _siblings(fold_texts, owner))
    shared = [key for key in metrics[0] if all(key in fold for fold in metrics)]
    return Result(
        metrics={key: float(np.mean([fold[key] for fold in metrics])) for key in shared},
        image_ids=tuple(image_ids) if image_ids is not None else tuple(str(i) for i in range(n)),
        text_image=np.asarray(text_image, dtype=np.int64),
        i2t=i2t,
        t2i=t2i,
        folds=folds,
        calibration=fit_calibration(*(np.concatenate(side) for side in zip(*scores, strict=True))),
    )


def _embedded(model: Encoder, images: Sequence[AnyImage], batch_size: int) -> Floats:
    """Unit vectors [N, D] of pictures. Raises DataError for one that cannot be decoded."""
    vectors = []
    for vector in embed_images(model, images, batch_size):
        if isinstance(vector, DataError):
            raise vector
        vectors.append(vector)
    return np.stack(vectors)


def _equal_captions(numbers: Ints, text_image: npt.NDArray[np.integer]) -> tuple[Ints, Ints] | None:
    """Pairs of captions that say the same of different images; None where no caption repeats so."""
    one, other = equal_pairs(numbers, numbers)
    differ = text_image[one] != text_image[other]
    return (one[differ], other[differ]) if differ.any() else None


def _inside(pairs: tuple[Ints, Ints], texts: Ints) -> tuple[Ints, Ints]:
    """The pairs whose captions are both among `texts` (ascending), by their positions there."""
    inside = np.isin(pairs[0], texts) & np.isin(pairs[1], texts)
    return np.searchsorted(texts, pairs[0][inside]), np.searchsorted(texts, pairs[1][inside])


def _equal_recalls(images: Floats, texts: Floats, owner: Ints, equal: tuple[Ints, Ints]) -> dict[str, float]:
    """Recalls that count a caption as right which says what a caption of the image says, and its image."""
    one, other = equal
    position = np.arange(len(images))
    from_images = rank_keys(images, texts, position, owner, also=(owner[one], other))
    from_texts = rank_keys(texts, images, owner, position, also=(one, owner[other]))
    return (
        _recalls("i2t_equal", from_images)
        | _recalls("t2i_equal", from_texts)
        | {"rsum_equal": r_sum(from_images.ranks, from_texts.ranks)}
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
    return _recalls("t2t", rank_keys(texts[asking], texts, ids[asking], ids, exclude=asking))


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
