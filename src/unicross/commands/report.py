"""`unicross report`: one HTML page about a run or a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unicross.commands.complete import runs


def report(
    folder: Annotated[
        Path, typer.Argument(autocompletion=runs, help="A run folder, or the folder of a comparison.")
    ],
    out: Annotated[Path | None, typer.Option(help="The page; by default FOLDER/report.html.")] = None,
) -> None:
    """Write one self-contained HTML page: tables, curves, clusters, what one model finds and another not."""
    from unicross.commands.show import Bars
    from unicross.report import write_report

    with Bars():
        page = write_report(folder, out)
    typer.echo(f"report written to {page}")
