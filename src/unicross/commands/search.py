"""`unicross search`: pictures by words, by a picture, by both, by a stored id; and texts by a picture."""

from __future__ import annotations

import json as json_module
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unicross.hybrid import Mode
    from unicross.query import Query
    from unicross.store import Hit, Store

VALUES_SHOWN = 12
"""Values of a column that are told where a filter finds nothing, the most frequent ones."""


def search(
    store: Annotated[
        str, typer.Argument(help="The store: a folder, http://host:port/collection or FILE.db/collection.")
    ],
    words: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="What to look for, as a picture.")] = None,
    like: Annotated[str | None, typer.Option(help='A stored id ("more like this").')] = None,
    minus: Annotated[list[str] | None, typer.Option(help="Words whose meaning is taken away.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="With words and --image: the picture's share, .5 if not said.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Compare words as a vector, with the words of texts (text), or both: hybrid.")
    ] = "vector",
    fold: Annotated[bool, typer.Option("--fold", help="Make one hit of near-duplicates.")] = False,
    near: Annotated[
        float | None,
        typer.Option(help="With --fold: from which cosine; else by how near the store's pictures lie."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="A column: make one hit of those with the same value, such as item.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Find texts instead of pictures.")] = False,
    where: Annotated[
        list[str] | None, typer.Option(help="Filter, such as album=beach or mtime>=2024-05-01.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many.")] = 10,
    offset: Annotated[int, typer.Option(help="How many to leave out at the top.")] = 0,
    min_score: Annotated[
        float, typer.Option(help="Leave out pictures that are less likely a match, from 0 to 1.")
    ] = 0,
    model: Annotated[Path | None, typer.Option(help="The model, where it is no longer at its place.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Write the hits with their pictures as one HTML file.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show them so in the browser.")] = False,
) -> None:
    """Find pictures (or --texts) in a store by words, by a picture, by both, or like a stored one."""
    if sum((words is not None, image is not None, like is not None)) == 0 or (like and (words or image)):
        raise typer.BadParameter("say what to look for: words, --image FILE, both of them, or --like ID")
    if weight is not None and (words is None or image is None):
        raise typer.BadParameter("--weight is between words and --image: give both")
    if near is not None and not fold:
        raise typer.BadParameter("--near says from which cosine --fold folds: give both")
    from unicross.query import Query
    from unicross.search import open_searcher
    from unicross.store import parse_where

    searcher = open_searcher(store, model=model, device=device)
    query = Query(
        words,
        image=image,
        like=like,
        minus=minus or (),
        where=parse_where(where or (), searcher.store.columns),
        kind="text" if texts else "image",
        weight=0.5 if weight is None else weight,
        mode=cast("Mode", mode),
        fold=fold,
        near=near,
        by=by,
        k=k,
        offset=offset,
        min_score=min_score,
    )
    hits = searcher.find(query)
    if sheet or open_:
        title = words or (str(image) if image else f"like {like}")
        _show(hits, searcher.store, title, sheet, open_)
    if json:
        typer.echo(json_module.dumps([as_dict(hit) for hit in hits], indent=2, ensure_ascii=False))
    else:
        _print(hits, offset, min_score)
        for sentence in () if hits else _met_by_none(searcher.store, query):
            typer.echo(sentence, err=True)


def _show(hits: list[Hit], store: Store, title: str, sheet: Path | None, open_: bool) -> None:
    from unicross.contact_sheet import render

    if sheet is None:
        sheet = Path(tempfile.mkdtemp(prefix="unicross-")) / "hits.html"
    try:
        sheet.write_text(render(title, hits, store), encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"--sheet {sheet}: cannot be written: {error.strerror}") from error
    typer.echo(f"the hits with their pictures: {sheet}", err=True)
    if open_:
        webbrowser.open(sheet.resolve().as_uri())


def as_dict(hit: Hit) -> dict[str, Any]:
    """A hit as plain data: the score, the built-in columns, and the user columns beside them."""
    likelihood = None if hit.likelihood is None else round(hit.likelihood, 4)
    return {
        **hit.row.extra,
        "score": round(hit.score, 6),
        "likelihood": likelihood,
        **hit.row.built_in,
        **({"others": [as_dict(other) for other in hit.others]} if hit.others else {}),
    }


def _print(hits: list[Hit], offset: int, min_score: float) -> None:
    from rich.table import Table
    from rich.text import Text

    from unicross.commands.show import output

    if not hits:
        typer.echo("nothing here looks like that" if min_score else "nothing found", err=True)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("score", justify="right")
    likely = any(hit.likelihood is not None for hit in hits)
    if likely:
        table.add_column("likely", justify="right")
    table.add_column("picture", overflow="fold")
    captioned = any(hit.row.caption for hit in hits)
    if captioned:
        table.add_column("caption", overflow="fold")
    table.add_column("id", style="dim")
    for rank, hit in enumerate(hits, offset + 1):
        told = [f"{hit.likelihood or 0:.0%}"] if likely else []
        caption = [hit.row.caption] if captioned else []
        table.add_row(*map(Text, (str(rank), f"{hit.score:.3f}", *told, _path(hit), *caption, hit.row.id)))
    output().print(table)


def _met_by_none(store: Store, query: Query) -> Iterator[str]:
    """What is there in place of what no picture (or text) has, a sentence a filter."""
    from unicross.store import Condition

    things = "texts" if query.kind == "text" else "pictures"
    of_kind = Condition("kind", "=", query.kind)
    for condition in query.where:
        if condition.operator not in ("=", "in") or store.count([condition, of_kind]):
            continue
        wanted = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        there = [str(value) for value, _ in store.values(condition.column, VALUES_SHOWN, [of_kind])]
        told = f"there are {', '.join(there)}" if there else f"no {things} have that column"
        yield f"{things} with {condition.column}={' or '.join(map(str, wanted))}: none; {told}"


def _path(hit: Hit) -> str:
    """The picture's path, and how many hits are folded into it."""
    return f"{hit.row.path} (+{len(hit.others)})" if hit.others else hit.row.path
