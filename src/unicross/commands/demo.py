"""`unicross demo`: the whole of it on drawn pictures: train, compare, index, search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    """Draw captioned pictures, train sole CLIP and the method, compare, index, and search.

    Offline, with small towers that begin at random; a few minutes on two CPU cores.
    """
    from unicross.commands.show import Listening, output
    from unicross.compare import compare, real_steps
    from unicross.compare.table import table
    from unicross.data.load import load_items
    from unicross.demo.scenes import write_demo_set
    from unicross.model import TwoTower
    from unicross.recipe import recipe_path
    from unicross.search import Query, open_searcher
    from unicross.store import StoreInfo, open_store
    from unicross.store.index import index

    console = output()
    data, store = out / "data", out / "store"
    console.print(f"[bold]1. Drawing {items} pictures to train on and {TESTED} to test on[/], in {data}")
    write_demo_set(data, items, TESTED, seed)
    if items < ENOUGH:
        console.print(f"[yellow]note:[/] {items} pictures teach little: --items 10000 teaches more")

    console.print("[bold]2. Training sole CLIP and the method[/] on the same pictures, for the same compute")
    with Listening(console) as listening:
        comparison = compare(
            [recipe_path(name) for name in RECIPES],
            [seed],
            out / "runs",
            overrides=[f"data.root={data}"],
            progress=lambda text: console.print(f"[dim]{text}[/]"),
            steps=real_steps(listening),
        )
    console.print(table(comparison))

    best = out / "runs" / comparison.rows[1].runs[0] / "best"
    console.print(f"[bold]3. Indexing the pictures[/] with {best}")
    model = TwoTower.load(best)
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=str(best.resolve()), dim=model.dim)
    index(model, data / "images", open_store(str(store), create=info), captions=data / "captions.csv")

    console.print("[bold]4. Searching[/]")
    searcher = open_searcher(str(store))
    for item in load_items(data, "val").items[:: TESTED // 3 + 1]:
        console.print(f"  [bold]{item.captions[0]}[/]")
        for hit in searcher.find(Query(item.captions[0], k=3)):
            described = "  <- the one described" if Path(hit.row.path).name == item.id else ""
            console.print(f"    {hit.score:.3f}  {hit.row.path}  {hit.row.caption}{described}")
    console.print(
        "Next: [bold]unicross search " + str(store) + ' "two purple diamonds"[/], '
        f"[bold]unicross report {out / 'runs'}[/], or train on pictures of your own (README.md)"
    )
