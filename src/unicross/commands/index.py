"""`unicross index`: bring a store in step with a folder of pictures."""

from __future__ import annotations

import json as json_module
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unicross.commands.complete import runs
from unicross.commands.data import READING_KEYS, Overrides, reading_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unicross.embed import Failure
    from unicross.model import TwoTower
    from unicross.store.index import IndexReport

FAILURES_SHOWN = 20
"""Files that could not be taken which are listed one by one; `--json` lists them all."""


def index(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            autocompletion=runs,
            help="The model: a run, a checkpoint, or a pretrained pair (folder or hub name).",
        ),
    ],
    folder: Annotated[
        str, typer.Argument(help="A folder of pictures, or a table, shards, Parquet, hf://NAME, s3://...")
    ],
    store: Annotated[
        str,
        typer.Option(
            help="The store, there or to be: a folder, http://host:port/collection or FILE.db/collection."
        ),
    ],
    overrides: Overrides = None,
    captions: Annotated[
        Path | None, typer.Option(help="Texts to add: .csv, .tsv, .jsonl, or .txt (docs/guides/search.md).")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what is gone from the folder.")] = False,
    moved_from: Annotated[
        Path | None, typer.Option(help="Where these pictures were before: they are not embedded again.")
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            min=1, help="Vectors of so many numbers, in principal axes of the pictures; for a new store."
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Where to archive the embeddings as Parquet; STORE/embeddings for a store in a folder."
        ),
    ] = None,
    thumbnails: Annotated[
        int | None,
        typer.Option(
            metavar="SIDE",
            help="Keep a small JPEG of each picture in the store, SIDE pixels (512, say) on its longer side, "
            "to show where that is gone; later runs go on with it.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep going: look again and again.")] = False,
    every: Annotated[float, typer.Option(min=0, help="With --watch: seconds between two looks.")] = 10,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the search page then, as `unicross serve STORE` does.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Embed every picture of FOLDER into a store.

    What is there and unchanged is skipped, so run it again whenever pictures came, changed or went; a run
    that was cut off goes on where it stopped.
    """
    from unicross.commands.show import Bars
    from unicross.data.load import read_options
    from unicross.data.places import local_copy
    from unicross.embed import shortened
    from unicross.errors import DataError, StoreError
    from unicross.model import TwoTower
    from unicross.model_folder import model_address
    from unicross.run import calibration_of
    from unicross.store import StoreInfo, open_store, stored_info
    from unicross.store.archive import EmbeddingArchive, archive_of
    from unicross.store.calibrate import calibrate
    from unicross.store.index import index as run
    from unicross.store.sample import sample_axes
    from unicross.store.sources import Reading, read_rows, require_place
    from unicross.store.thumbnails import check_thumbnails

    if thumbnails is not None:
        check_thumbnails(thumbnails, store)
    said = reading_config(overrides or (), ("data.format=", *READING_KEYS))
    reading = Reading(said.format, read_options(said))
    place = local_copy(folder)
    require_place(place)
    with Bars():
        rows = read_rows(place, captions, reading)
    if not (rows.found or watch):
        print_failures(rows.failures)
        raise DataError(
            f"{folder}: no pictures in it: give the folder that holds them; "
            "what a store still has of it goes with `unicross store forget`"
        )
    tower = TwoTower.load(checkpoint, device)
    print_preparation(tower)
    known = stored_info(store)
    if known is None:
        dim, axes = dim or tower.dim, ""
        if dim != tower.dim:
            with Bars() as bars:
                shown = partial(bars.show, "sampling")
                axes = sample_axes(tower, rows, dim, on_progress=shown)
    elif dim in (None, known.dim):
        dim, axes = known.dim, known.axes
    else:
        raise StoreError(
            f"{store} has vectors of {known.dim} numbers: leave --dim out, or index into a new store"
        )
    model = shortened(tower, dim, axes)
    address = model_address(checkpoint)
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=address, dim=model.dim, axes=axes)
    target = open_store(store, create=info)
    embeddings = EmbeddingArchive(archive) if archive else archive_of(store)
    reported: set[Failure] = set()
    while True:
        with Bars() as bars:
            report = run(
                model,
                rows,
                target,
                prune=prune,
                moved_from=moved_from,
                archive=embeddings,
                thumbnails=thumbnails,
                on_progress=partial(bars.show, "indexing"),
            )
        moved_from = None  # for those that follow
        if report.changed and (not watch or target.info.calibration is None):
            target.remember(calibration=(None if axes else calibration_of(checkpoint)) or calibrate(target))
        news = report.changed or report.thumbnails or not reported.issuperset(report.failed)
        if not watch or news:
            _print(report, store, target.count(), reported, json=json)
        reported.update(report.failed)
        if not watch:
            break
        time.sleep(every)
        with Bars():
            rows = read_rows(local_copy(folder), captions, reading)
    target.close()
    if serve:
        from unicross.commands.serve import serve as run_server

        run_server(store)


def _print(report: IndexReport, store: str, count: int, reported: set[Failure], *, json: bool) -> None:
    if json:
        typer.echo(json_module.dumps({**asdict(report), "rows": count}, indent=2, ensure_ascii=False))
        return
    from unicross.wording import counted

    moved = f"{report.moved} moved, " if report.moved else ""
    known = f"{report.known} known by their content, " if report.known else ""
    typer.echo(
        f"{store}: {report.added} added, {moved}{known}{report.updated} updated, "
        f"{report.unchanged} unchanged, {report.removed} removed; the store has {counted(count, 'row')}"
    )
    if report.thumbnails:
        typer.echo(f"{counted(report.thumbnails, 'thumbnail')} made")
    if report.without_picture and report.changed:
        has = "item has" if report.without_picture == 1 else "items have"
        typer.echo(f"{report.without_picture:,} {has} no picture: their texts alone were added", err=True)
    print_failures([failure for failure in report.failed if failure not in reported])
    print_archive(report)


def print_archive(report: IndexReport) -> None:
    """What was wrong with the archive of embeddings, on standard error."""
    from unicross.wording import counted

    for problem in report.archive_problems[:FAILURES_SHOWN]:
        typer.echo(f"the archive was damaged and goes on with what is sound: {problem}", err=True)
    if report.archived:
        typer.echo(
            f"the archive lacked {counted(report.archived, 'row')} of the store, which it has now", err=True
        )


def print_preparation(model: TwoTower) -> None:
    """How the model wants pictures and texts, on standard error."""
    for sentence in model.preparation():
        typer.echo(sentence, err=True)


def print_failures(failed: Sequence[Failure]) -> None:
    """The first of them, one a line, on standard error."""
    if failed:
        typer.echo(f"{len(failed)} not taken:", err=True)
        for failure in failed[:FAILURES_SHOWN]:
            typer.echo(f"  {failure.path}: {failure.reason}", err=True)
        if len(failed) > FAILURES_SHOWN:
            typer.echo(f"  and {len(failed) - FAILURES_SHOWN} more (--json lists them all)", err=True)
