"""Set kept runs against each other: `python benchmarks/kept_difference.py B-clip B-few`, names before -seedN.

Reads docs/results/NAME-seedN.json as keep_result.py wrote them, with the ranks of every query, and prints
each metric's mean and deviation over seeds and, against the first name, the paired bootstrap interval that
`unicross compare` prints. So seeds may come from different days and machines.
"""

from __future__ import annotations

import argparse
import json
import re

import numpy as np
from rich.console import Console
from rich.table import Table

from results import RESULTS
from unicross.comparison import COMPARED, difference_text, per_image
from unicross.evaluation import Result
from unicross.metrics import paired_bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    names = parser.parse_args().names
    results = {name: _seeds(name) for name in names}
    first = results[names[0]]
    if any(not np.array_equal(r.text_image, first[0].text_image) for rs in results.values() for r in rs):
        raise SystemExit(f"{', '.join(names)}: not all of these runs were evaluated on the same captions")
    table = Table("", *(f"{name}, {len(results[name])} seeds" for name in names))
    for metric in COMPARED:
        values = [_values(results[name], metric) for name in names]
        means = [v.mean(axis=1) for v in values]  # [S] each
        spread = [f" ± {m.std(ddof=1):.1f}" if len(m) > 1 else "" for m in means]
        table.add_row(metric, *(f"{m.mean():.1f}{s}" for m, s in zip(means, spread, strict=True)))
    differences = [paired_bootstrap(values[0], v, np.random.default_rng(0)) for v in values[1:]]  # of rsum
    table.add_row(f"rsum less {names[0]}'s", "", *map(difference_text, differences))
    Console().print(table)


def _seeds(name: str) -> list[Result]:
    """The kept runs NAME-seedN, by seed; of their evaluation only the ranks."""
    paths = [
        p for p in RESULTS.glob(f"{name}-seed*.json") if re.fullmatch(rf"{re.escape(name)}-seed\d+", p.stem)
    ]
    runs = [json.loads(path.read_text()) for path in sorted(paths)]
    if not runs or not all("ranks" in run for run in runs):
        raise SystemExit(f"{RESULTS}: no runs {name}-seedN with the ranks of their queries")
    return [_result(run["ranks"]) for run in runs]


def _result(kept: dict[str, str]) -> Result:
    i2t, t2i, text_image = (np.array(kept[key].split(), int) for key in ("i2t", "t2i", "text_image"))
    none, nothing = np.zeros(0, int), np.zeros(0, np.float32)
    return Result({}, (), text_image, i2t, t2i, none, none, nothing, nothing)


def _values(results: list[Result], metric: str) -> np.ndarray:
    """[S, N]: a row a seed, a column an image."""
    return np.stack([per_image(result, metric) for result in results])


if __name__ == "__main__":
    main()
