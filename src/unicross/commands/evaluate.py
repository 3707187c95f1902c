"""`unicross evaluate`: how well a checkpoint finds captions by images and images by captions."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unicross.commands.complete import runs
from unicross.commands.data import READING_KEYS

if TYPE_CHECKING:
    from rich.table import Table

    from unicross.config import DataConfig
    from unicross.data.items import Items
    from unicross.result import Result

DATA_KEYS = (
    *("data.root=", "data.format=", "data.split.val=", "data.split.train=", "data.on_error="),
    *READING_KEYS,
)
"""Overrides that an evaluation heeds."""


def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            autocompletion=runs,
            help="The model: a run, a checkpoint, or a pretrained pair (folder or hub name).",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="The data, where they are not those of training: data.root=DIR data.split.val=test ...",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="Parts evaluated alone and averaged (COCO 1K: 5).")] = 1,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images that pass the model at a time; by default as suits it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Evaluate on the validation split of CHECKPOINT's recipe, or on other data; an untrained pair on all
    items of data.root, or on the split data.split.val.

    All captions count. Recalls and mAP are in percent; ties count against the model.
    """
    from unicross.commands.index import print_preparation
    from unicross.commands.show import Bars
    from unicross.evaluation import evaluate as run
    from unicross.model import TwoTower
    from unicross.run import RunFolder

    items = evaluation_items(checkpoint, overrides or [])
    model = TwoTower.load(checkpoint, device)
    print_preparation(model)
    with Bars():
        result = run(model, items, folds=folds, batch_size=batch_size)
    if json:
        typer.echo(json_module.dumps({**result.metrics, **_sizes(result)}, indent=2))
    else:
        _print(result)
    run_folder = RunFolder(checkpoint)
    if run_folder.best.exists() and folds == 1 and not overrides:
        try:
            result.save(run_folder.evaluation)
        except OSError as error:
            typer.echo(f"not kept for `unicross report`: {error}", err=True)


def evaluation_items(checkpoint: Path, overrides: list[str]) -> Items:
    """What to evaluate on: the data of the checkpoint's recipe, or, of an untrained pair, those given."""
    from unicross.data.load import read_untrained, read_validation, seen_in_training
    from unicross.model_folder import has_recipe, located, recipe_of
    from unicross.recipe import data_config, with_overrides
    from unicross.run import checkpoint_at

    for text in overrides:
        if not text.startswith(DATA_KEYS):
            raise typer.BadParameter(
                f"{text!r} changes nothing in an evaluation: give {', '.join(DATA_KEYS)}"
            )
    folder = checkpoint if has_recipe(checkpoint) else checkpoint_at(checkpoint)
    if not has_recipe(folder):
        return read_untrained(data_config(overrides))
    trained = located(folder, recipe_of(folder))
    recipe = with_overrides(trained, overrides)
    items = read_validation(recipe.data)
    if overrides and (seen := seen_in_training(trained.data, recipe.data, items)):
        typer.echo(f"note: the model was trained on {seen} of these {len(items)} items", err=True)
    elif leaks := _leaks(trained.data, items):
        shown = ", ".join(f"{path} is {twin}" for path, twin in leaks[:3])
        typer.echo(
            f"error: {len(leaks)} of these {len(items)} pictures are, byte for byte, pictures that the model "
            f"was trained on ({shown}): its figures are too good. "
            f"All: `unicross data {recipe.data.root} --check`",
            err=True,
        )
    return items


def _leaks(trained: DataConfig, items: Items) -> list[tuple[str, str]]:
    """Pictures among the items that the model was trained on; none where that data are gone."""
    from unicross.errors import DataError
    from unicross.hygiene.leaks import exact_leaks

    try:
        return exact_leaks(trained, items)
    except DataError:
        return []


def _sizes(result: Result) -> dict[str, int]:
    return {"n_images": result.n_images, "n_captions": result.n_captions}


def _print(result: Result) -> None:
    from rich.table import Table

    from unicross.commands.show import output
    from unicross.wording import counted

    metrics = result.metrics
    columns = ("R@1", "R@5", "R@10", "median_rank", "mean_rank", "mAP")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    ways = {
        "i2t": "image to text",
        "t2i": "text to image",
        "i2t_equal": "image to text, equal captions right",
        "t2i_equal": "text to image, equal captions right",
        "i2i": "image to image",
        "t2t": "text to text",
    }
    for way, name in ways.items():
        cells = [f"{metrics[f'{way}/{c}']:.1f}" if f"{way}/{c}" in metrics else "" for c in columns]
        if any(cells):
            table.add_row(name, *cells)
    console = output()
    console.print(table)
    if (by_kind := _by_kind(metrics)) is not None:
        console.print(by_kind)
    console.print(
        f"rSum {metrics['rsum']:.1f} over {counted(result.n_images, 'image')} and "
        f"{counted(result.n_captions, 'caption')}"
        f"{_of_items(result)}"
    )


def _of_items(result: Result) -> str:
    return f" of {result.n_items} items" if result.n_items < result.n_images else ""


def _by_kind(metrics: dict[str, float]) -> Table | None:
    """Recalls at 1 by the language or field of a text that asks for images, or for texts of another; None
    where captions have neither."""
    from rich.markup import escape
    from rich.table import Table

    from unicross.result import kinds_of

    if not (kinds := kinds_of(metrics)):
        return None
    table = Table(box=None, pad_edge=False, title="R@1 by language or field", title_justify="left")
    table.add_column("text")
    table.add_column("to image", justify="right")
    for kind in kinds:
        table.add_column(escape(f"to {kind}"), justify="right")
    for asking in kinds:
        keys = [f"t2i_{asking}/R@1", *(f"t2t_{asking}_{kind}/R@1" for kind in kinds)]
        table.add_row(escape(asking), *(f"{metrics[key]:.1f}" if key in metrics else "" for key in keys))
    return table
