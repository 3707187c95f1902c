"""Keep what came of runs as small JSONs under docs/results: `python benchmarks/keep_result.py RUN=NAME ...`.

Of runs that `unicross compare` evaluated, the rank of every query is kept too, so that kept_difference.py can
set runs of different days and machines against each other.
Paths are cut to their last two parts, so that no machine's folders enter the repository.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
import yaml

from unicross.compare import EVALUATION
from unicross.evaluation import Result

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN=NAME")
    parser.add_argument("--note", default="", help="how they were run, where that matters")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for given in arguments.runs:
        run, name = given.rsplit("=", 1)
        kept = {"name": name, "date": date.today().isoformat()} | _kept(Path(run), arguments.note)
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def _kept(run: Path, note: str) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((run / "recipe.yaml").read_text())  # of any version
    recipe["data"]["root"] = _short(recipe["data"]["root"])
    for tower in ("image", "text"):
        if isinstance(recipe["model"][tower], str):
            recipe["model"][tower] = _short(recipe["model"][tower])
    summary = run / "summary.json"
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "hardware": f"{recipe['train']['threads'] or torch.get_num_threads()} threads, "
        f"{torch.cpu.get_capabilities()['cpu_name']}",
        "torch": torch.__version__,
        "note": note,
        "recipe": recipe,
        "summary": json.loads(summary.read_text()) if summary.exists() else "stopped before its end",
        "rounds": [_rounded(event) for event in events if event["kind"] == "round"],
        "epochs": [_rounded(event) for event in events if event["kind"] in ("epoch", "eval")],
    } | _ranks(run / EVALUATION)


def _ranks(path: Path) -> dict[str, Any]:
    """Ranks in the order of the queries, and which image each caption belongs to, as text: a line each."""
    if not path.exists():
        return {}
    result = Result.load(path)
    columns = {"i2t": result.i2t_ranks, "t2i": result.t2i_ranks, "text_image": result.text_image}
    return {"ranks": {name: " ".join(map(str, values.tolist())) for name, values in columns.items()}}


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _rounded(event: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in event.items()}


if __name__ == "__main__":
    main()
