"""`unicross embed`: vectors of pictures and texts as Parquet, on this machine or on a Ray cluster."""

from __future__ import annotations

import functools
import json as json_module
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from unicross.commands.complete import runs
from unicross.commands.data import READING_KEYS, Overrides, reading_config


class Engine(StrEnum):
    local = "local"
    ray = "ray"


def embed(
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
    out: Annotated[Path, typer.Option(help="The folder for the Parquet files.")],
    overrides: Overrides = None,
    captions: Annotated[
        Path | None, typer.Option(help="Texts to add: .csv, .tsv, .jsonl, or .txt (docs/guides/search.md).")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Where to work: here, or on a Ray cluster.")] = Engine.local,
    workers: Annotated[int, typer.Option(min=1, help="With ray: processes that hold the model.")] = 2,
    gpus: Annotated[float, typer.Option(min=0, help="With ray: GPUs for each of them.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; the best there is by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Embed all of FOLDER into Parquet, to make stores of later: unicross store rebuild OUT STORE.

    What is there and unchanged is skipped; a run that was cut off goes on where it stopped. Ray finds its
    cluster by RAY_ADDRESS and starts one of this machine otherwise.
    """
    from unicross.commands.index import print_archive, print_failures, print_preparation
    from unicross.commands.show import Bars
    from unicross.data.load import read_options
    from unicross.data.places import local_copy
    from unicross.errors import DataError
    from unicross.model import TwoTower
    from unicross.model_folder import model_address
    from unicross.store import StoreInfo
    from unicross.store.bulk import embed_source, embed_source_ray
    from unicross.store.sources import Reading, require_place

    said = reading_config(overrides or (), ("data.format=", *READING_KEYS))
    reading = Reading(said.format, read_options(said))
    place = local_copy(folder)
    require_place(place)
    model = TwoTower.load(checkpoint, device)
    print_preparation(model)
    path = model_address(checkpoint)
    info = StoreInfo(fingerprint=model.fingerprint(), checkpoint=path, dim=model.dim)
    with Bars() as bars:
        on_progress = functools.partial(bars.show, "embedding")
        if engine is Engine.ray:
            report = embed_source_ray(
                functools.partial(TwoTower.load, path, device),
                info,
                place,
                out,
                captions=captions,
                reading=reading,
                on_progress=on_progress,
                workers=workers,
                gpus_per_worker=gpus,
            )
        else:
            report = embed_source(
                model, info, place, out, captions=captions, reading=reading, on_progress=on_progress
            )
    if json:
        typer.echo(json_module.dumps(asdict(report), indent=2, ensure_ascii=False))
    else:
        typer.echo(f"{out}: {report.added} embedded, {report.updated} updated, {report.unchanged} unchanged")
        print_failures(report.failed)
        print_archive(report)
    if not report.found:
        raise DataError(f"{folder}: no pictures in it: give the folder that holds them")
