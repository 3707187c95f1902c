"""`unicross export`: a model as a folder of another library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unicross.commands.complete import runs


class Target(StrEnum):
    hf = "hf"
    onnx = "onnx"
    sentence_transformers = "sentence-transformers"
    open_clip = "open_clip"


def export(
    model: Annotated[
        Path,
        typer.Argument(
            autocompletion=runs,
            help="The model: a run, a checkpoint, or a pretrained pair (folder or hub name).",
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write, which must not exist.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="With --int8: the data to measure on, as `unicross evaluate` takes them: data.root=DIR ...",
        ),
    ] = None,
    to: Annotated[Target, typer.Option(help="The library that shall load it.")] = Target.hf,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="With onnx: also in 8 bits; the card says what recall that costs."),
    ] = False,
    push: Annotated[
        str | None, typer.Option(help="Upload it to the Hugging Face hub under this name, private.")
    ] = None,
) -> None:
    """Write MODEL as a folder that another library loads, with the same embeddings and a model card."""
    if int8 and to is not Target.onnx:
        raise typer.BadParameter("--int8 is for --to onnx")
    if overrides and not int8:
        raise typer.BadParameter(f"{overrides[0]!r} changes nothing without --int8")
    from unicross.commands.evaluate import evaluation_items
    from unicross.commands.show import Bars
    from unicross.export import export as run
    from unicross.model import TwoTower

    items = evaluation_items(model, overrides or []) if int8 else None
    towers = TwoTower.load(model, "cpu")
    with Bars():
        run(towers, model, out, to.value, int8_on=items)
    typer.echo(f"{out}: written for {to.value}; its README.md says how to load it")
    if push is not None:
        from unicross.export.push import push as upload

        typer.echo(f"uploaded to {upload(out, push)}")
