"""Paired bootstrap intervals of the difference between two sides, from the ranks of every query.

A side is a recipe with its runs, one a seed. Both sides were evaluated on the same images and captions, so
what an image makes hard, it makes hard for both: the images are paired, the seeds are not.

Letters: S seeds, N images, M captions, R resamples. Recalls are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unicross.metrics import RECALL_AT, Doubles, Ints

COMPARED = (*(f"{way}/R@{k}" for way in ("i2t", "t2i") for k in RECALL_AT), "rsum")
"""Metrics that are means over images, so that a bootstrap over images holds for them."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where each query's best positive ranks, counted from 1, in the runs of one side: a row a seed."""

    i2t: Ints
    """[S, N]: an image among the captions."""
    t2i: Ints
    """[S, M]: a caption among the images."""


def paired_difference(
    a: Ranks, b: Ranks, text_image: npt.NDArray[np.integer], metrics: Sequence[str] = COMPARED
) -> dict[str, Difference]:
    """Metrics of b less those of a, each with its 95% interval, by metric.

    Caption m belongs to image `text_image[m]` [M]. Every metric is resampled by the same draws, so that
    equal ranks always give equal intervals.
    """
    return {
        name: paired_bootstrap(
            per_image(a, text_image, name), per_image(b, text_image, name), np.random.default_rng(0)
        )
        for name in metrics
    }


def per_image(ranks: Ranks, text_image: npt.NDArray[np.integer], metric: str) -> Doubles:
    """Values [S, N], one an image, whose mean over images is the metric, for a metric of COMPARED."""
    if metric == "rsum":
        parts = [per_image(ranks, text_image, name) for name in COMPARED if name != "rsum"]
        return np.sum(parts, axis=0, dtype=np.float64)
    way, k = metric.split("/R@")
    if way == "i2t":
        return np.where(ranks.i2t <= int(k), 100.0, 0.0)
    n = ranks.i2t.shape[1]
    return np.stack([per_cluster(np.where(row <= int(k), 100.0, 0.0), text_image, n) for row in ranks.t2i])


def per_cluster(values: npt.NDArray[np.number], clusters: npt.NDArray[np.integer], n: int) -> Doubles:
    """One value for each of `n` clusters of queries, so that their mean is the mean of `values` [Q].

    The captions of an image are not independent: bootstraps resample images, not captions.
    """
    sums: Doubles = np.bincount(clusters, weights=values, minlength=n).astype(np.float64)
    return sums * (n / len(values))


@dataclass(frozen=True)
class Difference:
    """Mean of b minus mean of a, and the bounds of its interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: npt.NDArray[np.number],
    b: npt.NDArray[np.number],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 2000,
) -> Difference:
    """Interval of mean(b) - mean(a), for runs `a` [S, N] and `b` [S', N] measured on the same N images.

    Each resample draws images (the same for both) and, for each side by itself, seeds: the pigeonhole
    bootstrap of Owen (2007), which is slightly wide rather than narrow. With one seed on a side, the interval
    does not cover what another seed would have given there.
    """
    assert a.ndim == b.ndim == 2
    assert a.shape[1] == b.shape[1]
    mean_a, mean_b = _resampled_means(a, b, rng, resamples)
    low, high = _interval(mean_b - mean_a, level)
    return Difference(float(b.mean() - a.mean()), low, high)


def _resampled_means(
    a: npt.NDArray[np.number], b: npt.NDArray[np.number], rng: np.random.Generator, resamples: int
) -> tuple[Doubles, Doubles]:
    """Means [R] of a and b over resampled columns, shared, and rows, not shared."""
    means = np.zeros((2, resamples))
    n = a.shape[1]
    at_once = max(1, 2**20 // n)
    for start in range(0, resamples, at_once):
        r = min(at_once, resamples - start)
        drawn = rng.integers(n, size=(r, n)) + n * np.arange(r)[:, None]
        times = np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n) / n  # how often each column
        for side, values in enumerate((a, b)):
            s = len(values)
            by_row = times @ values.T.astype(np.float64)  # [r, N] @ [N, S] -> [r, S]
            chosen = np.take_along_axis(by_row, rng.integers(s, size=(r, s)), axis=1)
            means[side, start : start + r] = chosen.mean(axis=1)
    return means[0], means[1]


def _interval(means: Doubles, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
