"""`unicross train`: train a recipe into a run folder, or go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unicross.commands.complete import recipes, runs


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            autocompletion=recipes, help="A recipe file, or a shipped one's name: clip, iucc, few, demo, ..."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values laid over the recipe.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; by default runs/RECIPE-DATE-TIME.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(autocompletion=runs, help="Go on with this run, which was cut short.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
) -> None:
    """Train RECIPE, for instance `unicross train clip data.root=photos data.split.val=0.1`."""
    from unicross.commands.show import Listening
    from unicross.errors import TrainingStopped
    from unicross.model_folder import located, with_root
    from unicross.recipe import load_recipe
    from unicross.run import RunFolder

    root = None
    if resume is not None and recipe is not None and "=" in recipe:
        key, _, root = recipe.partition("=")
        if key != "data.root" or overrides:
            raise typer.BadParameter(
                "--resume takes no overrides but data.root=PATH, where the data moved: a run goes on with "
                "its own recipe"
            )
        recipe = None
    if (recipe is None) == (resume is None):
        raise typer.BadParameter("give either a recipe or --resume RUN")
    if resume is not None:
        if out is not None:
            raise typer.BadParameter("--out goes with a recipe: --resume goes on in its own folder")
        loaded, folder = located(resume, RunFolder(resume).recipe()), resume
        loaded = with_root(loaded, root) if root else loaded
    else:
        assert recipe is not None
        loaded = load_recipe(recipe, overrides or ())
        folder = out or _new_folder(Path(recipe).stem)
    from unicross.training import train as run  # takes seconds, which a wrong recipe does not wait for
    from unicross.training.distributed import is_first

    try:
        if not is_first():  # the first process speaks for all
            run(loaded, folder, resume=resume is not None, device=device)
            return
        with Listening() as listening:
            summary = run(loaded, folder, resume=resume is not None, listener=listening, device=device)
    except TrainingStopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(128 + stopped.signal) from None
    except KeyboardInterrupt:  # before the first step, or a second one
        is_begun = RunFolder(folder).has_begun
        how = f"go on with: unicross train --resume {folder}" if is_begun else "begin again"
        typer.echo(f"stopped; {how}", err=True)
        raise typer.Exit(130) from None
    best = summary["metrics"]
    found = f"best rSum {best['rsum']:.1f}, " if best else ""
    typer.echo(f"done in {summary['minutes']:.1f} minutes: {found}model in {RunFolder(folder).best}")


def _new_folder(name: str) -> Path:
    from datetime import datetime

    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
