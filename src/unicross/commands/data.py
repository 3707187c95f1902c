"""`unicross data`: what a folder or captions file holds, as training would read it."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unicross.data.items import Items


def data(
    root: Annotated[Path, typer.Argument(help="What `data.root` would be: a folder or a captions file.")],
    format: Annotated[
        str | None, typer.Option(help="What `data.format` would be; else it is detected.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Read and check data without training: its splits, pairs and captions, and what is wrong with it.

    Pictures are looked at by their headers only. Problems exit with 1, as they would stop training.
    """
    from unicross.data.formats import FORMATS
    from unicross.data.load import survey
    from unicross.data.records import describe

    if format is not None and format not in FORMATS:
        raise typer.BadParameter(f"--format is one of {', '.join(FORMATS)}")
    found = survey(root, format=format)
    figures = {name: _figures(items) for name, items in found.splits.items()}
    if json:
        about = {"format": found.format, "path": str(found.path), "splits": figures}
        typer.echo(json_module.dumps(about | {"problems": [str(p) for p in found.problems]}, indent=2))
    else:
        typer.echo(f"{found.path}, read as {found.format}")
        _print(figures, found.splits)
        if found.problems:
            typer.echo(f"problems: {describe(found.problems)}")
    if found.problems:
        raise typer.Exit(1)


def _figures(items: Items) -> dict[str, float]:
    import pyarrow.compute as pc

    texts = items.texts
    words = pc.count_substring_regex(texts, r"\S+").to_numpy()
    shared = pc.sum(pc.greater(pc.value_counts(texts).field("counts"), 1)).as_py() or 0
    return {
        "items": len(items),
        "pairs": int((items.has_image & items.has_text).sum()),
        "images alone": int((items.has_image & ~items.has_text).sum()),
        "texts alone": int((~items.has_image & items.has_text).sum()),
        "captions": len(texts),
        "said more than once": shared,
        "mean words": round(float(words.mean()), 1) if len(words) else 0,
        "most words": int(words.max()) if len(words) else 0,
    }


def _print(figures: dict[str, dict[str, float]], splits: dict[str, Items]) -> None:
    from rich.table import Table

    from unicross.commands.show import output

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in next(iter(figures.values())):
        table.add_column(name, justify="right")
    for split, values in figures.items():
        table.add_row(split, *(f"{value:,}" for value in values.values()))
    console = output()
    console.print(table)
    for item in next(iter(splits.values()))[:3]:
        first = item.captions[0] if item.captions else "(no caption)"
        console.print(f"{item.image_id}: {first}", markup=False)
