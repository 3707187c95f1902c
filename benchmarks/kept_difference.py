"""Set kept runs against each other: `python benchmarks/kept_difference.py B-clip B-few`, names before -seedN.

Reads docs/results/NAME-seedN.json as keep_result.py wrote them, with the ranks of every query, and prints
each metric's mean and deviation over seeds and, against the first name, the paired bootstrap interval that
`unicross compare` prints. So seeds may come from different days and machines.
"""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from results import RESULTS
from unicross.comparison import COMPARED
from unicross.metrics import paired_bootstrap, per_cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    names = parser.parse_args().names
    values = {name: _per_image(_seeds(name)) for name in names}
    table = Table("", *(f"{name}, {len(values[name]['rsum'])} seeds" for name in names))
    for metric in COMPARED:
        means = [values[name][metric].mean(axis=1) for name in names]  # [S] each
        spread = [f" ± {m.std(ddof=1):.1f}" if len(m) > 1 else "" for m in means]
        table.add_row(metric, *(f"{m.mean():.1f}{s}" for m, s in zip(means, spread, strict=True)))
    differences = [
        paired_bootstrap(values[names[0]]["rsum"], values[name]["rsum"], np.random.default_rng(0))
        for name in names[1:]
    ]
    table.add_row(
        f"rsum less {names[0]}'s", "", *(f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]" for d in differences)
    )
    Console().print(table)


def _seeds(name: str) -> list[dict[str, Any]]:
    """The kept runs NAME-seedN, by seed."""
    paths = [
        p for p in RESULTS.glob(f"{name}-seed*.json") if re.fullmatch(rf"{re.escape(name)}-seed\d+", p.stem)
    ]
    runs = [json.loads(path.read_text()) for path in sorted(paths)]
    if not runs or not all("ranks" in run for run in runs):
        raise SystemExit(f"{RESULTS}: no runs {name}-seedN with the ranks of their queries")
    return runs


def _per_image(runs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """[S, N] for each metric of COMPARED: a row a seed, a column an image."""
    rows: dict[str, list[np.ndarray]] = {metric: [] for metric in COMPARED}
    for run in runs:
        i2t, t2i, of = (np.array(run["ranks"][key].split(), int) for key in ("i2t", "t2i", "text_image"))
        found = {"i2t": i2t, "t2i": t2i}
        for metric in COMPARED[:-1]:
            way, k = metric.split("/R@")
            hit = np.where(found[way] <= int(k), 100.0, 0.0)
            rows[metric].append(hit if way == "i2t" else per_cluster(hit, of, len(i2t)))
        rows["rsum"].append(np.sum([rows[metric][-1] for metric in COMPARED[:-1]], axis=0))
    return {metric: np.stack(values) for metric, values in rows.items()}


if __name__ == "__main__":
    main()
