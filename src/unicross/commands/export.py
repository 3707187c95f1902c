"""`unicross export`: a model as a folder of another library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Target(StrEnum):
    hf = "hf"
    sentence_transformers = "sentence-transformers"
    open_clip = "open_clip"


def export(
    model: Annotated[
        Path,
        typer.Argument(help="The model: a run, a checkpoint, or a pretrained pair (folder or hub name)."),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write, which must not exist.")],
    to: Annotated[Target, typer.Option(help="The library that shall load it.")] = Target.hf,
    push: Annotated[
        str | None, typer.Option(help="Upload it to the Hugging Face hub under this name, private.")
    ] = None,
) -> None:
    """Write MODEL as a folder that another library loads, with the same embeddings and a model card."""
    from unicross.export import export as run
    from unicross.model import TwoTower

    run(TwoTower.load(model, "cpu"), model, out, to.value)
    typer.echo(f"{out}: written for {to.value}; its README.md says how to load it")
    if push is not None:
        from unicross.export.push import push as upload

        typer.echo(f"uploaded to {upload(out, push)}")
