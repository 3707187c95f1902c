"""The command line. Commands import what they need when they run, so that `unicross --help` is instant."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from unicross.commands.compare import compare
from unicross.commands.data import data
from unicross.commands.demo import demo
from unicross.commands.embed import embed
from unicross.commands.evaluate import evaluate
from unicross.commands.export import export
from unicross.commands.index import index
from unicross.commands.report import report
from unicross.commands.search import search
from unicross.commands.serve import serve
from unicross.commands.store import app as store
from unicross.commands.train import train
from unicross.errors import TrainingStopped, UnicrossError

app = typer.Typer(
    name="unicross",
    help="Find pictures by words and words by pictures: train, evaluate, index, search and serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
EXAMPLES: dict[Callable[..., None], str] = {
    data: "unicross data photos --check --html odd.html",
    train: "unicross train iucc data.root=photos data.split.val=0.1 train.batch_size=64 --out runs/photos",
    evaluate: "unicross evaluate runs/photos data.split.val=test --folds 5",
    compare: "unicross compare clip iucc data.root=photos data.split.val=0.1 --seeds 0,1,2 --match compute",
    report: "unicross report runs/compare",
    index: "unicross index runs/photos ~/Pictures --store pictures --prune",
    embed: "unicross embed runs/photos shards --out vectors --engine ray --workers 8",
    search: 'unicross search pictures "a dog in the snow" -k 5',
    serve: "unicross serve pictures --port 8080",
    export: "unicross export runs/photos photos-hf --to hf",
    demo: "unicross demo --items 4000",
}
for command, example in EXAMPLES.items():
    app.command(epilog=f"For instance: {example}")(command)
app.add_typer(store, name="store")


def _version(wanted: bool) -> None:
    if wanted:
        from unicross import __version__

        typer.echo(f"unicross {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    del version


def main() -> None:
    """Run the command line: errors of ours are one line and exit code 1, usage errors exit code 2."""
    try:
        app()
    except TrainingStopped as stopped:
        typer.echo(str(stopped), err=True)
        sys.exit(128 + stopped.signal)
    except (UnicrossError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, without importing torch
            raise
        typer.echo(
            "error: out of memory on the device: use --device cpu, or give evaluate a lower --batch-size",
            err=True,
        )
        sys.exit(1)
