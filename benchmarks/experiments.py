"""The tables under experiments/, which experiments/README.md describes: reading them and adding to them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from unicross.compare.intervals import CROSS, UNI, Owners, Ranks
from unicross.files import beside, write_text
from unicross.recipe import load_recipe
from unicross.result import Result

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "src" / "unicross" / "recipes"
FOLDER = ROOT / "experiments"
WAYS = (*CROSS, *UNI)
RECALLS = tuple(f"{way}/R@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
METRICS = (*RECALLS, "rsum", "i2t/mean_rank", "t2i/mean_rank", "t2t/R@1", "i2i/R@1", "rsum_all")
RUN_COLUMNS = (
    *(
        "name",
        "recipe",
        "overrides",
        "data",
        "seed",
        "date",
        "hardware",
        "torch",
        "note",
        "finished",
        "epochs",
    ),
    *METRICS,
    *("compute_gflop", "image_forwards", "text_forwards", "minutes"),
)
CURVE_COLUMNS = (
    *("name", "epoch", "rsum", "i2t/R@1", "t2i/R@1"),
    *("hardness", "hardness_random", "masked", "matched"),
)
INTERVAL_COLUMNS = ("document", "cited", "metric", "a", "b", "method", "why_not")

Row = dict[str, str]


def read_rows(name: str) -> list[Row]:
    """The rows of experiments/NAME.csv, every value as text; an empty text where there is none."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write experiments/NAME.csv; numbers with four digits after the point at most."""
    with beside(FOLDER / f"{name}.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows({key: _short(value) for key, value in row.items()} for row in rows)


@cache
def read_ranks() -> dict[str, dict[str, np.ndarray]]:
    """By the run's name: ranks from 1 on by way (`i2t`, `t2i`, perhaps `i2i` and `t2t`, 0 for what asked
    nothing); `captions` and `images` [N], how many an item has."""
    table = pq.read_table(FOLDER / "ranks.parquet")
    runs: dict[str, dict[str, np.ndarray]] = {}
    for row, name in enumerate(table["name"]):
        cells = {key: table[key][row] for key in table.column_names if key != "name"}
        run = {key: cell.values.to_numpy() for key, cell in cells.items() if cell.is_valid}
        runs[name.as_py()] = {"images": np.ones_like(run["captions"])} | run
    return runs


def side_ranks(names: Sequence[str]) -> tuple[Ranks, Owners]:
    """Ranks of these runs, in this order, for the ways that all have, and the item of each query.

    Raises KeyError where the ranks of a run are not kept, ValueError where the runs were not evaluated on the
    same images and captions.
    """
    chosen = [read_ranks()[name] for name in names]
    counts = {part: chosen[0][part] for part in ("images", "captions")}
    if any(not np.array_equal(run[part], count) for run in chosen for part, count in counts.items()):
        raise ValueError("they were not evaluated on the same images and captions")
    items = {part: np.repeat(np.arange(len(count)), count) for part, count in counts.items()}
    ways = [way for way in WAYS if all(way in run for run in chosen)]
    ranks = {way: np.stack([run[way] for run in chosen]) for way in ways}
    return ranks, {way: items["images" if way[0] == "i" else "captions"] for way in ways}


def kept_ranks(result: Result) -> dict[str, Any]:
    """What `read_ranks` gives of a run, as plain lists."""
    images = np.bincount(result.image_item, minlength=result.n_items)
    captions = np.bincount(result.text_item, minlength=result.n_items)
    several = {"images": images.tolist()} if images.max() > 1 else {}
    ranks = {way: found.ranks.tolist() for way, found in result.ways.items()}
    return ranks | {"captions": captions.tolist()} | several


def add_ranks(rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows (`name` and what `read_ranks` gives) to ranks.parquet, in the place of older ones."""
    path = FOLDER / "ranks.parquet"
    small, count = pa.list_(pa.int16()), pa.list_(pa.int8())  # galleries of at most 32,767
    columns = dict.fromkeys(WAYS, small) | {"captions": count, "images": count}
    schema = pa.schema({"name": pa.string()} | columns)
    before = pq.read_table(path).to_pylist() if path.exists() else []
    named = {row["name"]: row for row in [*before, *rows]}
    read_ranks.cache_clear()
    table = pa.Table.from_pylist([named[name] for name in sorted(named)], schema)
    with beside(path) as partial:
        pq.write_table(table, partial, compression="zstd", compression_level=19)


def read_recipes() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((FOLDER / "recipes.yaml").read_text(encoding="utf-8"))


def add_recipes(recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Add recipes to recipes.yaml, a few lines each, so that runs can be told by what differs from them."""
    path = FOLDER / "recipes.yaml"
    text = path.read_text(encoding="utf-8")
    for name, recipe in recipes.items():
        sections = "".join(f"  {key}: {_flow(recipe[key], 110)}\n" for key in recipe if key != "stages")
        stages = "".join(f"  - {_flow(stage, 110)}\n" for stage in recipe["stages"])
        text += f"{name}:\n{sections}  stages:\n{stages}"
    write_text(path, text)


def shipped_recipes() -> dict[str, dict[str, Any]]:
    """Those of the package as they are now, by name and today's date."""
    recipes = {}
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = load_recipe(path, ["data.root=data"]).model_dump(mode="json")
        del recipe["seed"], recipe["data"]["root"]
        recipes[f"{path.stem}@{date.today().isoformat()}"] = recipe
    return recipes


def can_describe(recipe: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether the recipe has all keys of the base: changed and new ones can be told, missing ones not."""
    stages = len(recipe["stages"])
    return _leaves(base, stages).keys() <= _leaves(recipe).keys()


def describe(recipe: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """The name of the recipe that takes the fewest words to change into this one, and those words.

    The words are KEY=VALUE as the command line takes them, but for `stages=N` where the number of stages
    differs; a stage that the named recipe lacks is its last one, changed.
    """
    overrides = {
        name: " ".join(_overrides(recipe, base))
        for name, base in recipes.items()
        if can_describe(recipe, base)
    }
    name = min(overrides, key=lambda name: (len(overrides[name]), name))
    return name, overrides[name]


def restore(name: str, overrides: str, recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The recipe that `describe` told of."""
    words = [word.split("=", 1) for word in re.split(r" (?=[\w.]+=)", overrides) if word]
    values = {key: yaml.safe_load(value) for key, value in words}
    leaves = _leaves(recipes[name], values.pop("stages", None)) | values
    whole: dict[str, Any] = {}
    for key, value in leaves.items():
        *parents, last = key.split(".")
        node = whole
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    whole["stages"] = [whole["stages"][number] for number in sorted(whole["stages"], key=int)]
    return whole


def _overrides(recipe: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    stages = len(recipe["stages"])
    before, after = _leaves(base, stages), _leaves(recipe)
    words = [f"stages={stages}"] if stages != len(base["stages"]) else []
    return words + [
        f"{key}={_flow(value)}" for key, value in after.items() if key not in before or before[key] != value
    ]


def _leaves(recipe: Mapping[str, Any], stages: int | None = None) -> dict[str, Any]:
    """Values by their dotted keys; towers and lists are values. The last stage stands for those it lacks."""
    leaves: dict[str, Any] = {}

    def add(node: Mapping[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, Mapping) and value and f"{prefix}{key}" not in ("model.image", "model.text"):
                add(value, f"{prefix}{key}.")
            else:
                leaves[f"{prefix}{key}"] = value

    add({key: value for key, value in recipe.items() if key != "stages"}, "")
    for number in range(stages or len(recipe["stages"])):
        add(recipe["stages"][min(number, len(recipe["stages"]) - 1)], f"stages.{number}.")
    return leaves


def _flow(value: Any, width: int = 10**6) -> str:
    """A value as YAML in braces and brackets, on one line or on several of at most `width`."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=width)
    return text.removesuffix("...\n").strip().replace("\n", "\n    ")


def read_benchmarks() -> dict[str, dict[str, Any]]:
    """Figures by the benchmark's name."""
    return json.loads((FOLDER / "benchmarks.json").read_text(encoding="utf-8"))


def write_benchmarks(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """A line a benchmark, by name, so that a new one changes one line."""
    lines = (f"{json.dumps(name)}: {json.dumps(figures[name])}" for name in sorted(figures))
    write_text(FOLDER / "benchmarks.json", "{\n" + ",\n".join(lines) + "\n}\n")


def keep(name: str, **figures: Any) -> None:
    """Put a benchmark's figures into experiments/benchmarks.json, with the date and the hardware."""
    about = {"date": date.today().isoformat(), "hardware": hardware(), "torch": torch.__version__}
    write_benchmarks(read_benchmarks() | {name: about | figures})


def hardware(threads: int | None = None) -> str:
    """The machine in words; `threads` are those that PyTorch uses."""
    processor = torch.cpu.get_capabilities().get("cpu_name")
    words = f"{threads or torch.get_num_threads()} threads, {processor}"
    return f"{words}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else words


def _short(value: Any) -> Any:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
