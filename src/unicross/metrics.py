"""Retrieval metrics: pure functions on numpy arrays.

Letters: Q queries, K keys, D dimensions, P most positives of a query.
Recalls and average precisions are in percent, ranks are 1-based.

Ties are counted pessimistically: a negative that scores the same as a positive ranks before it. Products in
float32 carry noise that depends on the shape of the matrices, so "the same" means closer than
`TIE * |query| * max |key|`. Nothing here knows models, files or how the embeddings came about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unicross.errors import DataError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TIE = 1e-6
"""Scores of unit vectors closer than this are ties; float32 noise of their product stays below it."""

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Ranking:
    """Where the positives of each query rank, and which negative comes closest to them."""

    negatives_above: Ints
    """[Q, P]: number of negatives above each positive, best positive first; -1 where there are fewer."""
    score: Floats
    """[Q]: score of the best positive."""
    rival: Ints
    """[Q]: index of the best-scored negative key, -1 where every key is positive."""
    rival_score: Floats
    """[Q]: its score, -inf where there is none."""

    @property
    def ranks(self) -> Ints:
        """[Q]: 1-based rank of the best-ranked positive among it and all negatives."""
        return self.negatives_above[:, 0] + 1

    @property
    def average_precision(self) -> Doubles:
        """[Q] in percent: mean over a query's positives of the precision at that positive's rank."""
        place = np.arange(1, self.negatives_above.shape[1] + 1)  # [P]
        precision = np.where(self.negatives_above >= 0, place / (place + self.negatives_above), 0.0)  # [Q, P]
        mean: Doubles = 100.0 * precision.sum(axis=1) / (self.negatives_above >= 0).sum(axis=1)
        return mean


def rank_keys(
    queries: npt.NDArray[np.floating],
    keys: npt.NDArray[np.floating],
    query_ids: npt.NDArray[np.integer],
    key_ids: npt.NDArray[np.integer],
    *,
    exclude: npt.NDArray[np.integer] | None = None,
    also: tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]] | None = None,
    block: tuple[int, int] = (512, 8192),
) -> Ranking:
    """Rank `keys` [K, D] by dot product with each of `queries` [Q, D].

    A key is a positive of a query where `key_ids` [K] equals `query_ids` [Q]. `exclude` [Q] names one key a
    query that is left out, such as the query itself. `also` names further positives: queries [M] and their
    keys [M], which `exclude` does not reach. Only a `block` (queries, keys) of the similarity matrix is held
    at a time. Raises DataError for values that are not finite and for a query without a positive.
    """
    q_all, k_all = _finite("queries", queries), _finite("keys", keys)
    assert q_all.shape[1:] == k_all.shape[1:]
    assert query_ids.shape == q_all.shape[:1]
    assert key_ids.shape == k_all.shape[:1]
    if not len(q_all):
        raise DataError("no queries to rank: give at least one")
    order = np.argsort(key_ids, kind="stable")
    sorted_ids = key_ids[order]
    longest = float(np.sqrt(np.einsum("kd,kd->k", k_all, k_all).max(initial=0.0)))
    rows, columns = block
    parts = []
    for start in range(0, len(q_all), rows):
        span = slice(start, start + rows)
        left_out = None if exclude is None else exclude[span]
        row, key = _positive_pairs(query_ids[span], order, sorted_ids, left_out, start)
        if also is not None:
            row, key = _united(row, key, *also, span)
        parts.append(_rank_rows(q_all[span], k_all, row, key, left_out, TIE * longest, columns))
    width = max(part.negatives_above.shape[1] for part in parts)
    padded = [
        np.pad(above, ((0, 0), (0, width - above.shape[1])), constant_values=-1)
        for above in (part.negatives_above for part in parts)
    ]
    return Ranking(
        np.concatenate(padded),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.rival for part in parts]),
        np.concatenate([part.rival_score for part in parts]),
    )


def recall_at(ranks: npt.NDArray[np.integer], k: int) -> float:
    """Percent of queries whose best positive is among the first `k`."""
    return float(100.0 * np.mean(ranks <= k))


def median_rank(ranks: npt.NDArray[np.integer]) -> float:
    return float(np.median(ranks))


def mean_rank(ranks: npt.NDArray[np.integer]) -> float:
    return float(np.mean(ranks))


def mean_average_precision(ranking: Ranking) -> float:
    """mAP over the whole ranking, every positive counted, in percent."""
    return float(ranking.average_precision.mean())


def r_sum(i2t_ranks: npt.NDArray[np.integer], t2i_ranks: npt.NDArray[np.integer]) -> float:
    """R@1 + R@5 + R@10 of both directions in percent, 0 to 600."""
    return sum(recall_at(ranks, k) for ranks in (i2t_ranks, t2i_ranks) for k in RECALL_AT)


def _finite(name: str, vectors: npt.NDArray[np.floating]) -> Floats:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise DataError(
            f"{(~finite).sum()} of {len(finite)} {name} hold values that are not finite, the first at "
            f"position {first}: the model that made these embeddings has diverged or is damaged"
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _positive_pairs(
    query_ids: npt.NDArray[np.integer],
    order: npt.NDArray[np.integer],
    sorted_ids: npt.NDArray[np.integer],
    exclude: npt.NDArray[np.integer] | None,
    start: int,
) -> tuple[Ints, Ints]:
    """All (row, key) of positives, rows in order; `start` is the position of row 0, for the message."""
    left = np.searchsorted(sorted_ids, query_ids, side="left")
    counts = np.searchsorted(sorted_ids, query_ids, side="right") - left
    row = np.repeat(np.arange(len(query_ids)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    key = order[np.repeat(left, counts) + within]
    if exclude is not None:
        kept = key != exclude[row]
        row, key = row[kept], key[kept]
    missing = np.bincount(row, minlength=len(query_ids)) == 0
    if missing.any():
        first = int(np.argmax(missing))
        raise DataError(
            f"query {start + first} (id {query_ids[first]}) has no key with its id: "
            "leave such queries out of the evaluation"
        )
    return row.astype(np.int64), key.astype(np.int64)


def _united(
    row: Ints, key: Ints, more_rows: npt.NDArray[np.integer], more_keys: npt.NDArray[np.integer], span: slice
) -> tuple[Ints, Ints]:
    """Positives and further ones of the queries in `span`, each once, rows in order."""
    inside = (more_rows >= span.start) & (more_rows < span.stop)
    rows = np.concatenate([row, more_rows[inside] - span.start])
    pairs = np.unique(
        np.stack([rows, np.concatenate([key, more_keys[inside]])], axis=1), axis=0
    )  # [pairs, 2]
    return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)


def _rank_rows(
    queries: Floats,
    keys: Floats,
    row: Ints,
    key: Ints,
    exclude: npt.NDArray[np.integer] | None,
    tie: float,
    columns: int,
) -> Ranking:
    """The ranking of a few rows; `tie` is for a query of length one."""
    n = len(queries)
    scores = np.concatenate([*_pair_scores(queries, keys, row, key)])  # [pairs]
    best_first = np.lexsort((-scores, row))
    counts = np.bincount(row, minlength=n)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    threshold = np.full((n, int(counts.max())), np.inf, dtype=np.float32)  # [n, P]
    noise = tie * np.sqrt(np.einsum("nd,nd->n", queries, queries))  # [n]
    threshold[row, place] = scores[best_first] - noise[row]
    negatives_above = np.where(np.isinf(threshold), -1, 0)  # [n, P]
    rival = np.full(n, -1, dtype=np.int64)
    rival_score = np.full(n, -np.inf, dtype=np.float32)
    dropped_row, dropped = row, key
    if exclude is not None:
        dropped_row, dropped = np.concatenate([row, np.arange(n)]), np.concatenate([key, exclude])
    for start in range(0, len(keys), columns):
        block = queries @ keys[start : start + columns].T  # [n, D] @ [D, columns] -> [n, columns]
        inside = (dropped >= start) & (dropped < start + columns)
        block[dropped_row[inside], dropped[inside] - start] = -np.inf
        top = block.argmax(axis=1)
        top_score = block[np.arange(n), top]
        better = top_score > rival_score
        rival[better], rival_score[better] = top[better] + start, top_score[better]
        for q in np.flatnonzero(top_score >= threshold.min(axis=1)):
            for p in range(counts[q]):  # counting along one contiguous row is far faster than along an axis
                negatives_above[q, p] += np.count_nonzero(block[q] >= threshold[q, p])
    return Ranking(negatives_above, scores[best_first][place == 0], rival, rival_score)


def _pair_scores(
    queries: Floats, keys: Floats, row: Ints, key: Ints, at_once: int = 65536
) -> Iterator[Floats]:
    for start in range(0, len(row), at_once):
        span = slice(start, start + at_once)
        yield np.einsum("pd,pd->p", queries[row[span]], keys[key[span]])  # [pairs, D] * [pairs, D] -> [pairs]
