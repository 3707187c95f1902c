"""What an evaluation found: metrics, and the rank of every query, so that results can be compared.

Q queries, N items, P images, M captions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unicross.calibration import Calibration
from unicross.errors import DataError
from unicross.files import write_text
from unicross.metrics import Floats, Ints, Ranking
from unicross.reading import LARGEST_TEXT, read_text


@dataclass(frozen=True)
class Direction:
    """What each of Q queries found.

    With folds, ranks and rivals are those within each item's fold.
    """

    ranks: Ints
    """[Q]: 1-based rank of the best right key; 0 for what asked nothing."""
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
    """Metrics, and what each query found, so that results can be compared query by query.

    N items, P images, M captions.
    """

    metrics: dict[str, float]
    """`i2t/R@1` and the like in percent; `i2t/median_rank`, `i2t/mean_rank`; `i2t/mAP` in percent; `rsum`
    of i2t and t2i, `rsum_all` of all four ways. Where captions repeat, `i2t_equal/R@1` and the like:
    recalls that count equal captions as right. Where they have languages, `t2i_de/R@1`, `t2t_de_en/R@1`;
    where fields, `t2i_title/R@1`, `t2t_title_tags/R@1`."""
    item_ids: tuple[str, ...]
    """[N]"""
    image_item: Ints
    """[P]: position of each image's item, ascending."""
    text_item: Ints
    """[M]: position of each caption's item, ascending."""
    ways: dict[str, Direction]
    """`i2t`: P images among M captions; `t2i`: M captions among P images; `t2t` and `i2i` where there are."""
    folds: int = 1
    calibration: Calibration | None = None
    """How likely a cosine of t2i is a match; None where it cannot be told. Not saved with the result."""

    @property
    def i2t(self) -> Direction:
        return self.ways["i2t"]

    @property
    def t2i(self) -> Direction:
        return self.ways["t2i"]

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def n_images(self) -> int:
        return len(self.image_item)

    @property
    def n_captions(self) -> int:
        return len(self.text_item)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        data = {
            "metrics": self.metrics,
            "item_ids": self.item_ids,
            "image_item": self.image_item.tolist(),
            "text_item": self.text_item.tolist(),
            "ways": {name: way.as_json() for name, way in self.ways.items()},
            "folds": self.folds,
        }
        write_text(path, json.dumps(data, separators=(",", ":"), allow_nan=False))

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what `save` wrote. Raises DataError for a file that is not a result."""
        try:
            data: dict[str, Any] = json.loads(read_text(path, LARGEST_TEXT))
            return cls(
                metrics=data["metrics"],
                item_ids=tuple(data["item_ids"]),
                image_item=np.array(data["image_item"], np.int64),
                text_item=np.array(data["text_item"], np.int64),
                ways={name: Direction.from_json(way) for name, way in data["ways"].items()},
                folds=data["folds"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: not a saved evaluation: {error}; delete it and evaluate again"
            ) from error


def kinds_of(metrics: Iterable[str]) -> list[str]:
    """The languages and fields of which metrics such as `t2i_de/R@1` tell."""
    names = [name[4:-4] for name in metrics if name.startswith("t2i_") and name.endswith("/R@1")]
    return [name for name in names if name != "equal"]
