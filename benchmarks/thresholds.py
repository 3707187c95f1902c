"""What "nothing here looks like that" is worth: likelihoods against what happens, on planted queries.

    python benchmarks/thresholds.py CHECKPOINT FLICKR8K [--coco COCO] [--keep NAME]

One half of the dev pictures, with its captions, is what the calibration is fitted on; the other half is the
store. It is asked for with its own captions (what is there) and with planted queries (what is not), of two
kinds: `alike`, captions of training pictures, of which many describe a picture of the store nearly as well,
and `other`, captions of COCO pictures that show neither people nor dogs: kitchens, giraffes, buses.

First the likelihoods by tenths of the queries: what is said, and the share of best hits that were right.
Then for each threshold: how often "nothing" is said where the picture is not there (recall); how often what
it is said of is not there (precision, where half of the queries are so); and the right best hits that are
lost. `area` is the area under the curve: how often a query for what is there scores higher than one for what
is not.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embeddings import TRAIN, embed_split
from experiments import keep
from unicross.calibration import Calibration, fit_calibration
from unicross.model import TwoTower

THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
COMMON = re.compile(
    r"\b(m[ae]n|wom[ae]n|persons?|people|boys?|girls?|child|children|kids?|baby|toddler|lady|ladies|guys?"
    r"|players?|dogs?|puppy|skater|surfer|skier|rider|someone|s?he|batter|snowboarder|skateboarder|couple"
    r"|group|crowd|friends|family|male|female|his|her|they)\b",
    re.IGNORECASE,
)
"""What nearly all pictures of Flickr8k show."""

Rows = list[dict[str, float | str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("flickr8k")
    parser.add_argument("--coco", type=Path, help="a folder with annotations/captions_*.json")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    model = TwoTower.load(arguments.checkpoint, "cpu")
    dev = embed_split(model, arguments.flickr8k, "dev", captions_each=5)
    order = np.random.default_rng(0).permutation(len(dev.images))
    fitted, stored = order[: len(order) // 2], order[len(order) // 2 :]
    calibration = fit_calibration(*right_and_wrong(dev.images, dev.texts, dev.owner, fitted))
    assert calibration is not None
    right, wrong = right_and_wrong(dev.images, dev.texts, dev.owner, stored)
    there = np.maximum(right, wrong)
    train = embed_split(model, arguments.flickr8k, "train", captions_each=1, first=TRAIN)
    planted = {"alike": train.texts}
    if arguments.coco:
        planted["other"] = model.encode_texts(uncommon_captions(arguments.coco))
    figures: Rows = []
    for kind, queries in planted.items():
        absent = (queries @ dev.images[stored].T).max(1)  # [Q, D] @ [D, N] -> [Q, N]
        figures.append({"planted": kind, "queries": len(queries), "area": area(there, absent)})
        if kind == "alike":
            figures += by_tenths(calibration, there, right > wrong, absent)
        figures += [
            {"planted": kind} | row for row in by_threshold(calibration, there, right > wrong, absent)
        ]
    for row in figures:
        print(row)
    if arguments.keep:
        keep(arguments.keep, rows=figures)


def uncommon_captions(coco: Path) -> list[str]:
    """Captions of pictures in none of whose captions people or dogs are named."""
    captions: dict[int, list[str]] = defaultdict(list)
    for path in sorted((coco / "annotations").glob("captions_*.json")):
        for annotation in json.loads(path.read_text())["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"].strip())
    return [text for own in captions.values() if not any(map(COMMON.search, own)) for text in own]


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


def area(there: np.ndarray, absent: np.ndarray) -> float:
    return float((there[:, np.newaxis] > absent).mean())


def likelihoods(calibration: Calibration, scores: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.array([calibration.likelihood(score) for score in scores])


def by_tenths(
    calibration: Calibration, there: np.ndarray, is_right: np.ndarray, absent: np.ndarray
) -> list[dict[str, float]]:
    said = likelihoods(calibration, np.concatenate([there, absent]))
    happened = np.concatenate([is_right, np.zeros(len(absent), bool)])
    tenths = np.array_split(np.argsort(said), 10)
    return [{"said": float(said[tenth].mean()), "is": float(happened[tenth].mean())} for tenth in tenths]


def by_threshold(
    calibration: Calibration, there: np.ndarray, is_right: np.ndarray, absent: np.ndarray
) -> list[dict[str, float]]:
    of_there, of_absent = likelihoods(calibration, there), likelihoods(calibration, absent)
    rows = []
    for threshold in THRESHOLDS:
        recall, wrongly = (of_absent < threshold).mean(), (of_there < threshold).mean()
        rows.append(
            {
                "min_score": threshold,
                "recall": float(recall),
                "precision": float(recall / max(recall + wrongly, 1e-9)),
                "right_first_hits_lost": float((of_there[is_right] < threshold).mean()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
