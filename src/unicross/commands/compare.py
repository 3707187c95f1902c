"""`unicross compare`: several recipes by several seeds, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unicross.commands.complete import recipes as shipped


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(autocompletion=shipped, help="Recipes and KEY=VALUE overrides of all of them."),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    match: Annotated[
        str, typer.Option(help="epochs, as the recipes have them, or compute: lengthen the cheaper ones too.")
    ] = "epochs",
    out: Annotated[Path, typer.Option(help="Where the runs are kept; finished ones are reused.")] = Path(
        "runs/compare"
    ),
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Runs at once, which share the threads of the CPU.")
    ] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Train RECIPES with every seed and set them against the first, with paired bootstrap intervals.

    Say which data with overrides: `unicross compare clip iucc data.root=photos data.split.val=0.1`.
    """
    from unicross.commands.show import Listening, output
    from unicross.compare import compare as run
    from unicross.compare import real_steps
    from unicross.compare.table import table
    from unicross.recipe import recipe_path

    if match not in ("epochs", "compute"):
        raise typer.BadParameter("--match is epochs or compute")
    numbers = seeds.split(",")
    if not all(number.strip().isdigit() for number in numbers):
        raise typer.BadParameter(f"--seeds takes whole numbers separated by commas, got {seeds!r}")
    console = output(stderr=True)
    with Listening(console) as listening:
        comparison = run(
            [recipe_path(text) for text in recipes if "=" not in text],
            [int(number) for number in numbers],
            out,
            match="compute" if match == "compute" else "epochs",
            overrides=[text for text in recipes if "=" in text],
            progress=lambda text: console.print(text),
            steps=real_steps(listening, device),
            at_once=jobs,
        )
    if json:
        typer.echo(comparison.model_dump_json(indent=2))
    else:
        output().print(table(comparison))
