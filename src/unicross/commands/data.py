"""`unicross data`: what a folder or captions file holds, as training would read it."""

from __future__ import annotations

import json as json_module
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unicross.config import DataConfig
    from unicross.data.items import Items
    from unicross.data.load import Survey

SEARCHES = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
"""A pretrained pair that is named where somebody has pictures and no captions."""
READING_KEYS = tuple(
    f"data.{key}=" for key in ("image", "caption", "split_column", "item", "language", "encoding")
)
"""Overrides that say how data are read."""
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="How it is read: data.caption=COLUMN data.encoding=cp1252 ..."
    ),
]


def reading_config(overrides: Sequence[str], keys: Sequence[str] = READING_KEYS) -> DataConfig:
    """What overrides say of how data are read. Raises BadParameter for others, RecipeError for values."""
    from unicross.recipe import load_recipe

    for text in overrides:
        if not text.startswith(tuple(keys)):
            raise typer.BadParameter(
                f"{text!r} says nothing of how data are read: give {', '.join(keys)}; of several "
                "files, their folder"
            )
    return load_recipe("clip", ["data.root=x", *overrides]).data


def data(
    root: Annotated[
        str,
        typer.Argument(
            help="What `data.root` would be: a folder or a captions file. With --suspects, a run."
        ),
    ],
    overrides: Overrides = None,
    format: Annotated[
        str | None, typer.Option(help="What `data.format` would be; else it is detected.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Look for duplicates, leaks between splits and odd captions, too.")
    ] = False,
    suspects: Annotated[
        bool, typer.Option("--suspects", help="ROOT is a run: show the pairs that its model doubts.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="With --check: a run or a pair that says which pairs look wrong.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Where to show what was found, with pictures, as one HTML file.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="With --check: where to write what is left, as .csv or .jsonl.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Read and check data without training: its splits, pairs and captions, and what is wrong with it.

    Pictures are looked at by their headers only. It ends with what can be trained on, what lay there and
    was not read, and the command to train. Problems exit with 1, as they would stop training, and so do
    pictures that are both trained on and held out. Nothing is deleted.
    """
    from unicross.commands.hygiene import check_survey, show_suspects
    from unicross.commands.show import Bars
    from unicross.data.formats import FORMATS
    from unicross.data.load import read_options, survey
    from unicross.data.records import describe

    if format is not None and format not in FORMATS:
        raise typer.BadParameter(f"--format is one of {', '.join(FORMATS)}")
    options = read_options(reading_config(overrides or ()))
    if not check and (model or write or (html and not suspects)):
        raise typer.BadParameter("--model, --write and --html say how to --check: give that as well")
    if suspects:
        if check or json or format or overrides:
            raise typer.BadParameter(
                "--suspects takes a run and --html alone: its data are those of its recipe"
            )
        show_suspects(Path(root), html or Path("suspects.html"))
        return
    with Bars():
        found = survey(root, format=format, options=options)
    figures = {name: _figures(items) for name, items in found.splits.items()}
    problems = [problem for problem in found.problems if problem.stops]
    unread = [f"{problem.where}: {problem.what}" for problem in found.problems if not problem.stops]
    leaks = 0
    if write is None:
        command = _command(root, format, overrides or (), found, bool(problems))
    else:
        command = _command(str(write), None, (), found, bad=False)
    if json:
        about = {"format": found.format, "path": str(found.path), "splits": figures}
        about |= {"problems": [str(problem) for problem in problems], "not read": unread, "train": command}
        if check:
            about["check"] = checked = check_survey(found, model, html, write, json=True)
            leaks = checked["leaks"]
        typer.echo(json_module.dumps(about, indent=2))
    else:
        typer.echo(f"{found.path}, read as {found.format}")
        _print(figures, found.splits)
        if problems:
            typer.echo(f"problems: {describe(problems)}")
        typer.echo(_verdict(figures))
        typer.echo("".join(f"not read: {line}\n" for line in unread), nl=False)
        if check:
            leaks = check_survey(found, model, html, write, json=False)["leaks"]
        if any(values["pairs"] for values in figures.values()):
            typer.echo(f"to train: {command}")
        elif any(values["images only"] for values in figures.values()):
            words = ["unicross", "index", SEARCHES, root, "--store", "pictures.lance"]
            typer.echo(f"to search them without training: {shlex.join(words)}")
    if problems or leaks:
        raise typer.Exit(1)


def _figures(items: Items) -> dict[str, float]:
    import numpy as np
    import pyarrow.compute as pc

    from unicross.data.items import text_numbers

    texts = items.texts
    words = pc.count_substring_regex(texts, r"\S+").to_numpy()
    repeated = np.bincount(text_numbers(texts)) > 1  # but for case and spaces
    several = {"images": len(items.images)} if (items.image_counts > 1).any() else {}
    languages = items.languages
    spoken = () if languages is None else sorted(set(languages.tolist()) - {""})
    by_language = {f"in {name}": int((languages == name).sum()) for name in spoken}
    return {
        "items": len(items),
        **several,
        "pairs": int((items.has_image & items.has_text).sum()),
        "images only": int((items.has_image & ~items.has_text).sum()),
        "texts only": int((~items.has_image & items.has_text).sum()),
        "captions": len(texts),
        **by_language,
        "said more than once": int(repeated.sum()),
        "mean words": round(float(words.mean()), 1) if len(words) else 0,
        "most words": int(words.max()) if len(words) else 0,
    }


def _print(figures: dict[str, dict[str, float]], splits: dict[str, Items]) -> None:
    from rich.table import Table

    from unicross.commands.show import output

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    names = list(dict.fromkeys(name for values in figures.values() for name in values))
    for name in names:
        table.add_column(name, justify="right")
    for split, values in figures.items():
        table.add_row(split, *(f"{values.get(name, 0):,}" for name in names))
    console = output()
    console.print(table)
    for item in next(iter(splits.values()))[:3]:
        first = item.captions[0] if item.captions else "(no caption)"
        console.print(f"{item.id}: {first}", markup=False)


def _verdict(figures: dict[str, dict[str, float]]) -> str:
    """What there is of all splits together, in a sentence."""
    pairs, images, texts = (
        int(sum(values[name] for values in figures.values()))
        for name in ("pairs", "images only", "texts only")
    )
    from unicross.wording import counted

    alone = f"{counted(images, 'picture')} without words, {counted(texts, 'text')} without a picture"
    if not pairs:
        return f"NO PAIRS of a picture and its words: {alone}"
    return f"{counted(pairs, 'pair')} of a picture and its words; {alone}"


def _command(
    root: str, format: str | None, overrides: list[str] | tuple[str, ...], found: Survey, bad: bool
) -> str:
    """How to train on these data."""
    from unicross.data.load import NO_SPLITS, SAME_SPLIT

    words = ["unicross", "train", "clip", f"data.root={root}", *([f"data.format={format}"] if format else [])]
    words += overrides
    names = [name for name in found.splits if name != NO_SPLITS]
    if names and "train" not in names:
        words.append(f"data.split.train={names[0]}")
    validation = [name for name in names if name in SAME_SPLIT]
    words.append(f"data.split.val={validation[0] if validation else 0.1}")
    words += ["data.on_error=skip"] if bad else []
    return shlex.join(words)
