"""`unicross store`: look into a store, drop a folder from it, copy it, rebuild it from its archive."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into a store, copy it, rebuild it.", no_args_is_help=True)


@app.command(epilog="For instance: unicross store info pictures --json")
def info(
    store: Annotated[str, typer.Argument(help="The store.")],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """What a store holds and which model filled it."""
    from unicross.store import open_store

    source = open_store(store)
    about = {
        "address": store,
        **source.info.model_dump(exclude={"axes"}),
        "rows": {str(kind): count for kind, count in source.values("kind", 10)},
        "thumbnails": None if source.thumbnails is None else source.thumbnails.about(),
        "columns": {name: kind.__name__ for name, kind in source.columns.items()},
    }
    source.close()
    if json:
        typer.echo(json_module.dumps(about, indent=2, ensure_ascii=False))
    else:
        for name, value in about.items():
            typer.echo(f"{name:12} {value}")


@app.command(epilog="For instance: unicross store forget pictures /old/disk/Pictures")
def forget(
    store: Annotated[str, typer.Argument(help="The store.")],
    root: Annotated[Path, typer.Argument(help="The folder of the pictures to drop; it may be gone.")],
) -> None:
    """Drop the rows of all pictures under a folder. The pictures themselves stay as they are."""
    from unicross.errors import StoreError
    from unicross.store import open_store
    from unicross.store.archive import archive_of
    from unicross.store.moved import forget_root
    from unicross.wording import counted

    target = open_store(store)
    count = forget_root(target, archive_of(store), root)
    if not count:
        roots = target.info.roots
        others = f"only those of {', '.join(roots)}" if roots else "nor of any other folder"
        raise StoreError(f"{store} has no pictures of {root}, {others}")
    typer.echo(f"{store}: {counted(count, 'row')} removed; {counted(target.count(), 'row')} left")
    target.close()


@app.command(epilog="For instance: unicross store copy pictures http://localhost:19530/pictures")
def copy(
    source: Annotated[str, typer.Argument(help="The store to copy.")],
    target: Annotated[
        str, typer.Argument(help="Another store, of any engine; made where there is none, else added to.")
    ],
) -> None:
    """Copy a store, to another engine for instance: same ids, same vectors, same filters."""
    from unicross.commands.show import Bars
    from unicross.errors import StoreError
    from unicross.store import open_store
    from unicross.store.archive import archive_of
    from unicross.store.copy import copy as run
    from unicross.wording import counted

    if source == target or (Path(source).exists() and Path(source).resolve() == Path(target).resolve()):
        raise StoreError(f"{source}: a store cannot be copied to itself: give another place")
    old = open_store(source)
    new = open_store(target, create=old.info)
    with Bars():
        run(old, new, archive_of(target))
    typer.echo(f"{target} has {counted(new.count(), 'row')}; {source} has {old.count():,}")
    if old.thumbnails is not None and old.thumbnails.side is not None and new.thumbnails is None:
        typer.echo(f"the thumbnails that {source} keeps stay there, as {target} is no folder", err=True)
    old.close()
    new.close()


@app.command(epilog="For instance: unicross store rebuild pictures/embeddings anew")
def rebuild(
    archive: Annotated[Path, typer.Argument(help="The archive of embeddings (STORE/embeddings).")],
    target: Annotated[str, typer.Argument(help="The store, new or to be added to, of any engine.")],
) -> None:
    """Make a store of an archive of embeddings, which `unicross index` or `unicross embed` wrote."""
    from unicross.commands.show import Bars
    from unicross.store import open_store
    from unicross.store.archive import EmbeddingArchive, archive_of
    from unicross.store.copy import rebuild as run
    from unicross.wording import counted

    source = EmbeddingArchive(archive)
    new = open_store(target, create=source.info)
    beside = archive_of(target)
    if beside is not None and beside.folder.resolve() == archive.resolve():
        beside = None  # the store is rebuilt from its own archive, which has these rows already
    with Bars():
        run(source, new, beside)
    typer.echo(f"{target} has {counted(new.count(), 'row')}")
    new.close()
