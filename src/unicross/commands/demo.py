"""`unicross demo`: the whole of it on drawn pictures: train, compare, index, search."""

from __future__ import annotations

import csv
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

RECIPES = ("demo_clip", "demo")
TESTED = 1000
"""Pictures to test on."""
ENOUGH = 4000
"""With fewer the recipes make less than 500 steps, and towers that begin at random have learned little."""


def demo(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo"),
    items: Annotated[int, typer.Option(min=200, help="Training pictures to draw.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the pictures and of training.")] = 0,
) -> None:
    """Draw captioned pictures, train plain CLIP and the method, compare, index, and search.

    Offline, with small towers that begin at random; a few minutes on two CPU cores, a recipe on each. At the
    end it serves the pictures that the models never saw, to be searched in the browser, where it was started
    in a terminal.
    """
    from unicross.commands.show import Bars, Listening, output
    from unicross.compare import compare, real_steps
    from unicross.compare.table import table
    from unicross.data.load import load_items
    from unicross.demo.scenes import write_demo_set
    from unicross.model import TwoTower
    from unicross.query import Query
    from unicross.recipe import recipe_path
    from unicross.run import calibration_of
    from unicross.search import open_searcher
    from unicross.store import StoreInfo, open_store
    from unicross.store.index import index

    console = output()
    data, store = out / "data", out / "store"
    console.print(f"[bold]1. Drawing {items} pictures to train on and {TESTED} to test on[/], in {data}")
    with Bars(console):
        write_demo_set(data, items, TESTED, seed)
    if items < ENOUGH:
        console.print(f"[yellow]note:[/] {items} pictures teach little: --items 10000 teaches more")

    console.print("[bold]2. Training plain CLIP and the method[/] on the same pictures, for the same compute")
    with Listening(console) as listening:
        comparison = compare(
            [recipe_path(name) for name in RECIPES],
            [seed],
            out / "runs",
            overrides=[f"data.root={data}"],
            progress=lambda text: console.print(f"[dim]{text}[/]"),
            steps=real_steps(listening),
            at_once=min(len(RECIPES), os.cpu_count() or 1),
        )
    console.print(table(comparison))

    best = out / "runs" / comparison.rows[1].runs[0] / "best"
    console.print(f"[bold]3. Indexing the pictures to test on[/] with {best}")
    model = TwoTower.load(best)
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=str(best.resolve()), dim=model.dim)
    target = open_store(str(store), create=info)
    with Bars(console) as bars:
        index(model, _table_of_tested(out), target, on_progress=partial(bars.show, "indexing"))
    target.remember(calibration=calibration_of(best))
    target.close()

    console.print("[bold]4. Searching[/]")
    searcher = open_searcher(str(store))
    for item in load_items(data, "val").items[:: TESTED // 3 + 1]:
        console.print(f"  [bold]{item.captions[0]}[/]")
        for hit in searcher.find(Query(item.captions[0], k=3)):
            described = "  <- the one described" if Path(hit.row.path).name == item.id else ""
            console.print(f"    {hit.score:.3f}  {hit.row.path}  {hit.row.caption}{described}")
    searcher.store.close()
    _invite(console, out)


def _table_of_tested(out: Path) -> Path:
    """Write the rows of `data/captions.csv` that are tested on as a table beside the folder."""
    table = out / "tested.csv"
    with (out / "data" / "captions.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption"])
        writer.writerows([f"data/images/{row['image']}", row["caption"]] for row in rows)
    return table


def _invite(console: Console, out: Path) -> None:
    """Serve the demo's store where somebody sits at a terminal and the server is installed, else say how."""
    from importlib.util import find_spec

    store, can_serve = out / "store", find_spec("uvicorn") is not None and find_spec("fastapi") is not None
    console.print(f"Compare what the two models find: [bold]unicross report {out / 'runs'}[/]")
    console.print(f'Search in the terminal: [bold]unicross search {store} "two purple diamonds"[/]')
    if can_serve and console.is_terminal and sys.stdin.isatty():
        from unicross.commands.serve import serve

        console.print("Search in the browser, at this address until you press Ctrl-C:")
        serve(str(store), port=0)
        return
    from rich.markup import escape

    needs = "" if can_serve else " (after pip install 'unicross[serve]')"
    console.print(f"Search in the browser: [bold]unicross serve {store}[/]{escape(needs)}")
