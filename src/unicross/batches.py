"""Batch plans: which items meet in a batch, decided before the epoch begins.

A plan is a list of arrays of item indices, plain data. In a plan each item occurs at most once, so two
items with one `image_id` never meet as negatives; what does not fill a batch sits this epoch out.

Letters: N items, B items of a batch, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Plan = list[Indices]


def random_batches(items: Indices, batch_size: int, rng: np.random.Generator) -> Plan:
    """Shuffle and cut; the remainder is left out. Fewer items than `batch_size` make one small batch."""
    shuffled = rng.permutation(items)
    count = max(1, len(items) // batch_size)
    return [shuffled[i * batch_size : (i + 1) * batch_size] for i in range(count)] if len(items) else []


def clustered_batches(
    clusters: Sequence[Indices],
    batch_size: int,
    rng: np.random.Generator,
    *,
    random_fraction: float = 0.0,
) -> Plan:
    """Pack whole clusters into batches, so that in-batch negatives are near their anchor.

    Args:
        clusters: disjoint groups of item indices, none larger than `batch_size`.
        batch_size: items a batch.
        rng: decides the order of batches and which clusters meet.
        random_fraction: share of the batches that are wholly random.
    """
    size = max(len(cluster) for cluster in clusters)
    assert size <= batch_size
    per_batch = batch_size // size
    shuffled = [clusters[i] for i in rng.permutation(len(clusters))]
    whole = [cluster for cluster in shuffled if len(cluster) == size]
    count = max(1, sum(map(len, clusters)) // batch_size)
    n_random = round(random_fraction * count)
    n_clustered = min(count - n_random, -(-len(whole) // per_batch))
    packed, apart = whole[: n_clustered * per_batch], whole[n_clustered * per_batch :]
    apart += [cluster for cluster in shuffled if len(cluster) < size]
    pool = rng.permutation(np.concatenate(apart)) if apart else np.zeros(0, dtype=np.int64)

    plan = [np.concatenate(packed[i * per_batch : (i + 1) * per_batch]) for i in range(n_clustered)]
    plan += [np.zeros(0, dtype=np.int64)] * (count - n_clustered)
    used = 0
    for i, batch in enumerate(plan):
        filled = np.concatenate([batch, pool[used : used + batch_size - len(batch)]])
        used += len(filled) - len(batch)
        plan[i] = filled
    full = [batch for batch in plan if len(batch) == batch_size] or plan[:1]
    return [full[i] for i in rng.permutation(len(full))]


def uni_modal_batches(
    pairs: Indices, images: Indices, texts: Indices, batch_size: int, rng: np.random.Generator
) -> Plan:
    """Batches for a stage without an image-text loss: each holds up to `batch_size` images (by
    rounding, one more) and as many texts.

    `pairs` have both, `images` and `texts` are alone. Every item is used once, so the scarcer modality is
    spread thin.
    """
    longest = len(pairs) + max(len(images), len(texts))
    count = max(1, -(-longest // batch_size))
    parts = [np.array_split(rng.permutation(kind), count) for kind in (pairs, images, texts)]
    return [np.concatenate(batch) for batch in zip(*parts, strict=True)]


def false_negatives(
    images: NDArray[np.floating], texts: NDArray[np.floating], mask_above: float
) -> NDArray[np.bool_]:
    """Pairs of a batch that are probably true matches although they belong to different items.

    Args:
        images, texts: [B, D] unit embeddings of the batch's items.
        mask_above: a pair is masked where its similarity exceeds this share of the positive similarity of its
            image or of its text. An anchor whose own positive similarity is not above zero masks nothing.

    Returns:
        [B, B] bool, image by text, the diagonal False.
    """
    similarity = images.astype(np.float32) @ texts.astype(np.float32).T  # [B, D] @ [D, B] -> [B, B]
    positive = np.diagonal(similarity)
    limit = np.where(positive > 0, mask_above * positive, np.inf)
    masked = (similarity > limit[:, None]) | (similarity > limit[None, :])
    np.fill_diagonal(masked, False)
    return masked


def equal_pairs(left: Indices, right: Indices, order: Indices | None = None) -> tuple[Indices, Indices]:
    """All positions in `left` and `right` that hold equal values, pair by pair; `order` sorts `right`."""
    order = np.argsort(right, kind="stable") if order is None else order
    ascending = right[order]
    begins = np.searchsorted(ascending, left, side="left")
    counts = np.searchsorted(ascending, left, side="right") - begins
    return np.repeat(np.arange(len(left)), counts), order[ranges(begins, counts)]


def ranges(first: Indices, counts: Indices) -> Indices:
    """`first[i]`, `first[i] + 1`, ..., `counts[i]` numbers, for each i, one after another."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + within


def hardness(plan: Plan, images: NDArray[np.floating], texts: NDArray[np.floating]) -> float:
    """Mean similarity of in-batch negatives (image of one item, text of another) over a plan.

    `images`, `texts`: [N, D] unit embeddings by item index. NaN for a plan without negatives.
    """
    total, count = 0.0, 0
    for batch in plan:
        similarity = images[batch].astype(np.float32) @ texts[batch].astype(np.float32).T  # [B, B]
        total += float(similarity.sum() - np.trace(similarity))
        count += len(batch) * (len(batch) - 1)
    return total / count if count else float("nan")
