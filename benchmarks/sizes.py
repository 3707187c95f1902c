"""Recall of a trained model that sees pictures at other sizes: `python benchmarks/sizes.py RUN 112 160 ...`.

A random crop shows things larger than the whole picture does; seeing whole pictures at a larger size makes
up for that (Touvron et al. 2019, "Fixing the train-test resolution discrepancy").
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import keep
from unicross import TwoTower
from unicross.data.load import read_validation
from unicross.evaluation import evaluate_embeddings
from unicross.run import RunFolder

SHOWN = ("i2t/R@1", "i2t/R@10", "t2i/R@1", "t2i/R@10", "rsum")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--keep", help="keep the figures in experiments/benchmarks.json")
    arguments = parser.parse_args()
    model = TwoTower.load(arguments.run)
    recipe = RunFolder(arguments.run).recipe()
    items = [item for item in read_validation(recipe.data) if item.is_pair]
    texts = model.encode_texts([caption for item in items for caption in item.captions])
    owner = np.repeat(np.arange(len(items)), [len(item.captions) for item in items])
    trained_at = [model.view_side(view.size) for stage in recipe.stages for view in stage.image_views]
    table, rows = Table("size", *SHOWN), {}
    for size in arguments.sizes:
        model.config = model.config.model_copy(update={"image_size": size})
        images = model.encode_images([item.images[0] for item in items])
        metrics = evaluate_embeddings(images, texts, owner).metrics
        rows[size] = {name: metrics[name] for name in SHOWN}
        table.add_row(str(size), *(f"{value:.1f}" for value in rows[size].values()))
    Console().print(table)
    if arguments.keep:
        keep(arguments.keep, trained_at=trained_at, rows=rows)


if __name__ == "__main__":
    main()
