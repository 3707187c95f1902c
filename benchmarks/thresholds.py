"""What "nothing here looks like that" is worth: likelihoods against what happens, on planted queries.

    python benchmarks/thresholds.py CHECKPOINT FLICKR8K [--keep NAME]

One half of the dev pictures, with its captions, is what the calibration is fitted on; the other half is the
store. It is asked for with its own captions (what is there) and with captions of the training split (what
is not). First the likelihoods by tenths of the queries: what is said, and the share of best hits that were
right. Then for thresholds: how often "nothing" is said where the picture is not there (recall), and how
often what it is said of was not there (precision, half of the queries being so).
"""

from __future__ import annotations

import argparse

import numpy as np

from experiments import keep
from unicross.calibration import fit_calibration
from unicross.data.load import load_items
from unicross.embed import embed_images
from unicross.model import TwoTower

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("flickr8k")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    model = TwoTower.load(arguments.checkpoint, "cpu")
    items = load_items(arguments.flickr8k, "dev").items
    images = np.stack(list(embed_images(model, [items.pictures[int(row)] for row in items.images])))  # [N, D]
    texts = model.encode_texts(items.texts.to_pylist())  # [M, D]
    owner = np.repeat(np.arange(len(items)), items.counts)
    order = np.random.default_rng(0).permutation(len(items))
    fitted, stored = order[: len(order) // 2], order[len(order) // 2 :]
    calibration = fit_calibration(*right_and_wrong(images, texts, owner, fitted))
    assert calibration is not None
    right, wrong = right_and_wrong(images, texts, owner, stored)
    elsewhere = load_items(arguments.flickr8k, "train").items.texts.to_pylist()[: len(right)]
    there = np.array([calibration.likelihood(score) for score in np.maximum(right, wrong)])
    best_elsewhere = (model.encode_texts(elsewhere) @ images[stored].T).max(1)
    absent = np.array([calibration.likelihood(score) for score in best_elsewhere])
    figures = by_tenths(there, right > wrong, absent) + by_threshold(there, right > wrong, absent)
    for row in figures:
        print(row)
    if arguments.keep:
        keep(arguments.keep, rows=figures)


def right_and_wrong(
    images: np.ndarray, texts: np.ndarray, owner: np.ndarray, gallery: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each caption of the gallery's pictures with its own picture, and the highest with another."""
    asks = np.isin(owner, gallery)
    cosines = texts[asks] @ images.T  # [Q, D] @ [D, N] -> [Q, N]
    queries = np.arange(len(cosines))
    right = cosines[queries, owner[asks]].copy()
    cosines[queries, owner[asks]] = -np.inf
    return right, cosines[:, gallery].max(1)


def by_tenths(there: np.ndarray, is_right: np.ndarray, absent: np.ndarray) -> list[dict[str, float]]:
    said = np.concatenate([there, absent])
    happened = np.concatenate([is_right, np.zeros(len(absent), bool)])
    tenths = np.array_split(np.argsort(said), 10)
    return [{"said": float(said[tenth].mean()), "is": float(happened[tenth].mean())} for tenth in tenths]


def by_threshold(there: np.ndarray, is_right: np.ndarray, absent: np.ndarray) -> list[dict[str, float]]:
    rows = []
    for threshold in THRESHOLDS:
        of_absent, of_there = (absent < threshold).mean(), (there < threshold).mean()
        rows.append(
            {
                "min_score": threshold,
                "recall": float(of_absent),
                "precision": float(of_absent / max(of_absent + of_there, 1e-9)),
                "right_first_hits_lost": float((there[is_right] < threshold).mean()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
