"""The retrieval protocol of the field: every image and every caption of every item, all ways, ties against
the model.

Only pairs count: items with an image and a caption are the gallery and the queries; images alone and texts
alone are left out.

i2t: an image finds any caption of its item. t2i: a caption finds any image of its item. t2t: a caption finds
another caption of its item, itself left out (items with one ask nothing; where more than SIBLING_QUERIES
could ask, a seeded sample of them asks). i2i: an image finds another image of its item, itself left out;
where no item has two, a fixed, seeded picture of the picture (half to 70 % of it, perhaps mirrored, other
colours) finds its own picture. Where captions have languages, or fields (titles, tags), t2i is also told for
each, and t2t for each pair of them, among captions of that language or field alone.

Where captions repeat (a catalogue's titles), the protocol counts a picture as wrong of which the very same
was said; recalls that count equal captions as right stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from unicross.batches import equal_pairs, ranges
from unicross.calibration import fit_calibration
from unicross.data.decoding import decode
from unicross.data.image_source import ImageSource
from unicross.data.items import Item, Items, text_numbers
from unicross.embed import Encoder, embed_images
from unicross.errors import DataError
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
from unicross.progress import track
from unicross.result import Direction, Result

CHANGED_AT_ONCE = 64
"""Changed pictures that are in memory together, in their own sizes."""
SIBLING_QUERIES = 50_000
"""Most that ask in t2t and i2i, whose cost would grow with their square. Recalls of so many have a standard
error of at most 0.22."""


def evaluate(
    model: Encoder, items: Sequence[Item], *, folds: int = 1, batch_size: int | None = None, seed: int = 0
) -> Result:
    """All metrics, i2i among them, of a model on the pairs among `items`.

    >>> evaluate(TwoTower.load("runs/mine"), load_items("photos", "val").items).metrics["rsum"]

    `folds`: items are cut into so many consecutive, equally large parts, each evaluated alone, and metrics
    averaged (5 for COCO's 1K protocol). `batch_size`: pictures that pass the model at a time; None: as suits
    the model. `seed` fixes the changed pictures of i2i. Raises DataError where there are no pairs, fewer than
    folds, or a picture cannot be decoded.
    """
    items = Items.of(items)
    pairs = items.select(np.flatnonzero(items.has_image & items.has_text))
    if not len(pairs):
        raise DataError(
            f"nothing to evaluate: none of {len(items)} items has both an image and a caption; "
            "check data.root and data.split.val"
        )
    pictures = [pairs.image(position) for position in range(len(pairs.images))]
    embedded = embed_images(model, pictures, batch_size)
    images = _stacked(track("embedding pictures", embedded, len(pictures)))  # [P, D]
    views = None
    if len(pictures) == len(pairs):
        batches = []
        starts = range(0, len(pictures), CHANGED_AT_ONCE)
        for start in track("embedding changed pictures", starts, len(starts)):
            batch = enumerate(pictures[start : start + CHANGED_AT_ONCE], start)
            changed = [_changed(picture, (seed, i)) for i, picture in batch]
            batches.append(_stacked(embed_images(model, changed, batch_size)))
        views = np.concatenate(batches)
    return evaluate_embeddings(
        images,
        model.encode_texts(pairs.texts.to_pylist()),
        pairs.item_of_text,
        image_item=pairs.item_of_image,
        item_ids=pairs.ids.to_pylist(),
        numbers=text_numbers(pairs.texts),
        languages=pairs.languages,
        fields=pairs.fields,
        views=views,
        folds=folds,
    )


def evaluate_embeddings(
    images: npt.NDArray[np.floating],
    texts: npt.NDArray[np.floating],
    text_item: npt.NDArray[np.integer],
    *,
    image_item: npt.NDArray[np.integer] | None = None,
    item_ids: Sequence[str] | None = None,
    numbers: Ints | None = None,
    languages: npt.NDArray[np.str_] | None = None,
    fields: npt.NDArray[np.str_] | None = None,
    views: npt.NDArray[np.floating] | None = None,
    folds: int = 1,
) -> Result:
    """All metrics of `images` [P, D] and `texts` [M, D], where `text_item` [M] is the item of each text.

    `image_item` [P] is the item of each image (default: one image an item), `item_ids` [N] are kept in the
    result (default: positions). `numbers` [M], equal for equal texts, give the recalls that count equal
    captions as right; `languages` [M], "" for none, those by language, and `fields` [M] those by field. Where
    no item has two images, i2i is there where `views` [P, D], embeddings of changed pictures, are given.
    Raises DataError for an item without a text or an image, for fewer items than folds, and for values that
    are not finite.
    """
    of_image = np.arange(len(images)) if image_item is None else np.asarray(image_item, np.int64)
    of_text = np.asarray(text_item, np.int64)
    n = int(of_image.max(initial=-1)) + 1
    if n < folds or not n:
        raise DataError(f"cannot evaluate {n} items in {folds} folds: give more items or fewer folds")
    equal = None if numbers is None else _equal_captions(numbers, of_text)
    ways = {"i2t": Direction.of(len(images)), "t2i": Direction.of(len(texts))}
    metrics: list[dict[str, float]] = []
    scores: list[tuple[Floats, Floats]] = []
    for fold in np.array_split(np.arange(n), folds):
        in_images, in_texts = (
            np.flatnonzero((owner >= fold[0]) & (owner <= fold[-1])) for owner in (of_image, of_text)
        )
        fold_images, fold_texts = images[in_images], texts[in_texts]
        image_owner, text_owner = of_image[in_images] - fold[0], of_text[in_texts] - fold[0]
        from_images = rank_keys(fold_images, fold_texts, image_owner, text_owner)
        from_texts = rank_keys(fold_texts, fold_images, text_owner, image_owner)
        ways["i2t"].fill(in_images, in_texts, from_images)
        ways["t2i"].fill(in_texts, in_images, from_texts)
        scores.append((from_texts.score, from_texts.rival_score))
        in_fold = _summary("i2t", from_images) | _summary("t2i", from_texts)
        in_fold["rsum"] = r_sum(from_images.ranks, from_texts.ranks)
        if equal is not None:
            inside = _inside(equal, in_texts)
            in_fold |= _equal_recalls(fold_images, fold_texts, image_owner, text_owner, inside)
        for name, vectors, owner, within in (
            ("i2i", fold_images, image_owner, in_images),
            ("t2t", fold_texts, text_owner, in_texts),
        ):
            if (asking := _with_sibling(owner)) is not None:
                found = rank_keys(vectors[asking], vectors, owner[asking], owner, exclude=asking)
            elif name == "i2i" and views is not None:
                asking = np.arange(len(within))
                found = rank_keys(views[in_images], vectors, owner, owner)
            else:
                continue
            ways.setdefault(name, Direction.of(len(of_image if name == "i2i" else of_text)))
            ways[name].fill(within[asking], within, found)
            in_fold |= _recalls(name, found)
        for kinds in (fields, languages):
            if kinds is not None:
                in_fold |= _by_kind(fold_images, fold_texts, image_owner, text_owner, kinds[in_texts])
        if "i2i/R@1" in in_fold and "t2t/R@1" in in_fold:
            in_fold["rsum_all"] = in_fold["rsum"] + sum(
                in_fold[f"{name}/R@{k}"] for name in ("i2i", "t2t") for k in RECALL_AT
            )
        metrics.append(in_fold)
    shared = [key for key in metrics[0] if all(key in fold for fold in metrics)]
    return Result(
        metrics={key: float(np.mean([fold[key] for fold in metrics])) for key in shared},
        item_ids=tuple(item_ids) if item_ids is not None else tuple(str(i) for i in range(n)),
        image_item=of_image,
        text_item=of_text,
        ways=ways,
        folds=folds,
        calibration=fit_calibration(*(np.concatenate(side) for side in zip(*scores, strict=True))),
    )


def _by_kind(
    images: Floats, texts: Floats, image_owner: Ints, text_owner: Ints, kinds: npt.NDArray[np.str_]
) -> dict[str, float]:
    """t2i of each language, or field, and t2t from each to each other, among the captions of that one."""
    metrics: dict[str, float] = {}
    of_kind = {str(name): np.flatnonzero(kinds == name) for name in np.unique(kinds) if name}
    if len(of_kind) < 2:
        return metrics
    for name, asking in of_kind.items():
        found = rank_keys(texts[asking], images, text_owner[asking], image_owner)
        metrics |= _recalls(f"t2i_{name}", found)
        for other, keys in of_kind.items():
            with_key = asking[np.isin(text_owner[asking], text_owner[keys])]
            if other == name or not len(with_key):
                continue
            found = rank_keys(texts[with_key], texts[keys], text_owner[with_key], text_owner[keys])
            metrics |= _recalls(f"t2t_{name}_{other}", found)
    return metrics


def _stacked(vectors: Iterable[npt.NDArray[np.float32] | DataError]) -> Floats:
    """Unit vectors [N, D] of pictures. Raises DataError for one that cannot be decoded."""
    decoded = []
    for vector in vectors:
        if isinstance(vector, DataError):
            raise vector
        decoded.append(vector)
    return np.stack(decoded)


def _equal_captions(numbers: Ints, text_item: Ints) -> tuple[Ints, Ints] | None:
    """Pairs of captions that say the same of different items; None where no caption repeats so."""
    one, other = equal_pairs(numbers, numbers)
    differ = text_item[one] != text_item[other]
    return (one[differ], other[differ]) if differ.any() else None


def _inside(pairs: tuple[Ints, Ints], texts: Ints) -> tuple[Ints, Ints]:
    """The pairs whose captions are both among `texts` (ascending), by their positions there."""
    inside = np.isin(pairs[0], texts) & np.isin(pairs[1], texts)
    return np.searchsorted(texts, pairs[0][inside]), np.searchsorted(texts, pairs[1][inside])


def _equal_recalls(
    images: Floats, texts: Floats, image_owner: Ints, text_owner: Ints, equal: tuple[Ints, Ints]
) -> dict[str, float]:
    """Recalls that count a caption as right which says what a caption of the item says, and that item's
    images."""
    one, other = equal
    order = np.argsort(image_owner, kind="stable")
    counts = np.bincount(image_owner)
    first = np.cumsum(counts) - counts
    # Of each pair of captions, the images of the first one's item: they may ask for the other, and be found.
    owners, others = text_owner[one], text_owner[other]
    asking = order[ranges(first[owners], counts[owners])]
    found = order[ranges(first[others], counts[others])]
    from_images = rank_keys(
        images, texts, image_owner, text_owner, also=(asking, np.repeat(other, counts[owners]))
    )
    from_texts = rank_keys(
        texts, images, text_owner, image_owner, also=(np.repeat(one, counts[others]), found)
    )
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


def _with_sibling(owner: Ints) -> Ints | None:
    """Positions of what has another of its item, at most SIBLING_QUERIES of them; None where nothing has."""
    asking = np.flatnonzero(np.isin(owner, np.flatnonzero(np.bincount(owner) > 1)))
    if len(asking) > SIBLING_QUERIES:
        asking = np.sort(np.random.default_rng(0).choice(asking, SIBLING_QUERIES, replace=False))
    return asking if len(asking) else None


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
