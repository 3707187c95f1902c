"""Draw how time and memory grow, from docs/results into docs/images: `python benchmarks/plots.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    _growth("clustering", "items", "Balanced clusters of 32, 256 dimensions, 2 cores")
    _growth("evaluation-scale", "captions", "Evaluation, five captions an image, 2 cores")


def _growth(name: str, size: str, title: str) -> None:
    """Seconds and peak GiB against the size, both axes logarithmic, as docs/images/NAME.svg."""
    rows: list[dict[str, Any]] = json.loads((DOCS / "results" / f"{name}.json").read_text())["rows"]
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axes, key, label in ((time, "seconds", "seconds"), (memory, "peak_gib", "peak memory, GiB")):
        axes.loglog([row[size] for row in rows], [row[key] for row in rows], "o-", color="#4f46c4")
        axes.set(xlabel=size, ylabel=label)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(DOCS / "images" / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
