"""How many of the pairs that a model doubts most are wrong, where it is known which are.

    python benchmarks/suspects.py RUN regimes/noisy20.jsonl [RUN TABLE ...]

TABLE is one of `regimes.py`, whose `is_wrong` says which items have another's captions; RUN was trained on
it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from unicross import TwoTower, load_items
from unicross.suspects import suspects_of

TOP = (50, 100, 500)


def main() -> None:
    if len(sys.argv) < 3 or len(sys.argv) % 2 == 0:
        sys.exit(__doc__)
    for run, table in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        with Path(table).open(encoding="utf-8") as lines:
            records = [record for record in map(json.loads, lines) if record["split"] == "train"]
        wrong = np.array([record["is_wrong"] for record in records])
        suspects = suspects_of(TwoTower.load(run), load_items(table, "train").items)
        hits = wrong[suspects.item][suspects.found.order]  # captions, the most doubtful first
        listed = hits[: suspects.found.count]
        figures = {
            "planted": int(wrong[suspects.item].sum()),
            "expected": suspects.found.wrong,
            "listed": len(listed),
            "precision": round(float(listed.mean()), 3) if len(listed) else None,
            "recall": round(float(listed.sum() / wrong[suspects.item].sum()), 3),
            "precision_at": {k: round(float(hits[:k].mean()), 3) for k in TOP},
        }
        print(run, json.dumps(figures))


if __name__ == "__main__":
    main()
