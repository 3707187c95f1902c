"""Paired bootstrap intervals of the difference between two sides, from the ranks of every query.

A side is a recipe with its runs, one a seed. Both sides were evaluated on the same items, so what an item
makes hard, it makes hard for both: the items are paired, the seeds are not.

Letters: S seeds, N items, Q queries of a way, R resamples. Recalls are in percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unicross.metrics import RECALL_AT, Doubles, Ints
from unicross.result import Result

CROSS, UNI = ("i2t", "t2i"), ("i2i", "t2t")
"""Ways between images and texts, and within each of them."""

Ranks = Mapping[str, Ints]
"""By way (`i2t`, ...): where each query's best positive ranks, counted from 1, in the runs of one side, a row
a seed [S, Q]; 0 for what asks nothing."""
Owners = Mapping[str, npt.NDArray[np.integer]]
"""By way: the item of each query [Q]."""


def ranks_of(results: Sequence[Result]) -> Ranks:
    """The ranks of one side, for the ways that all its runs have."""
    ways = [way for way in (*CROSS, *UNI) if all(way in result.ways for result in results)]
    return {way: np.stack([result.ways[way].ranks for result in results]) for way in ways}


def owners_of(result: Result) -> Owners:
    """The item of each query of a result."""
    return {way: result.image_item if way[0] == "i" else result.text_item for way in result.ways}


def compared_metrics(ranks: Ranks) -> list[str]:
    """Metrics that are means over items, so that a bootstrap over items holds for them."""
    names = [f"{way}/R@{k}" for way in CROSS for k in RECALL_AT] + ["rsum"]
    names += [f"{way}/R@{k}" for way in UNI if way in ranks for k in RECALL_AT]
    return names + (["rsum_all"] if all(way in ranks for way in UNI) else [])


def paired_difference(
    a: Ranks, b: Ranks, owners: Owners, metrics: Sequence[str] | None = None
) -> dict[str, Difference]:
    """Metrics of b minus those of a, each with its 95% interval, by metric; None: all that both have.

    Every metric is resampled by the same draws, so that equal ranks always give equal intervals.
    """
    if metrics is None:
        metrics = compared_metrics({way: ranks for way, ranks in a.items() if way in b})
    return {
        name: paired_bootstrap(per_item(a, owners, name), per_item(b, owners, name), np.random.default_rng(0))
        for name in metrics
    }


def per_item(ranks: Ranks, owners: Owners, metric: str) -> Doubles:
    """Values [S, N], one an item, whose mean over items is the metric, for one of `compared_metrics`."""
    if metric in ("rsum", "rsum_all"):
        ways = CROSS if metric == "rsum" else (*CROSS, *UNI)
        parts = [per_item(ranks, owners, f"{way}/R@{k}") for way in ways for k in RECALL_AT]
        return np.sum(parts, axis=0, dtype=np.float64)
    way, k = metric.split("/R@")
    n = int(owners["i2t"].max()) + 1
    asking = ranks[way][0] > 0
    hits = np.where(ranks[way][:, asking] <= int(k), 100.0, 0.0)
    return np.stack([per_cluster(row, owners[way][asking], n) for row in hits])


def per_cluster(values: npt.NDArray[np.number], clusters: npt.NDArray[np.integer], n: int) -> Doubles:
    """One value for each of `n` clusters of queries, so that their mean is the mean of `values` [Q].

    The captions of an item are not independent: bootstraps resample items, not captions.
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
    """Interval of mean(b) - mean(a), for runs `a` [S, N] and `b` [S', N] measured on the same N items.

    Each resample draws items (the same for both) and, for each side by itself, seeds: the pigeonhole
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
