"""What `unicross data` does with `--check` and `--suspects`: the checks, told and written out."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unicross.errors import DataError

if TYPE_CHECKING:
    from unicross.data.load import Survey
    from unicross.hygiene.check import Checked

SHOWN = 3
"""Findings of a kind that are printed; a sheet and `--json` have more."""


def check_survey(
    found: Survey, model: Path | None, html: Path | None, write: Path | None, *, json: bool
) -> dict[str, Any]:
    """Check what a survey found, print it or give it as data, write the sheet and what is left.

    The result has the number of `leaks`.
    """
    from unicross.commands.show import Bars
    from unicross.hygiene.check import check
    from unicross.hygiene.clean import require_writable, write_clean
    from unicross.hygiene.sheet import render
    from unicross.model import TwoTower

    if write is not None:
        for items in found.splits.values():
            require_writable(write, items)
    with Bars() as bars:
        towers = None if model is None else TwoTower.load(model)
        checked = check(found.splits, lambda title: partial(bars.show, title), towers)
    about = _about(checked)
    if not json:
        _print(checked)
    if html is not None:
        _write_page(html, render(checked, f"What is odd about {found.path}"))
    if write is not None:
        left, removed, second = write_clean(write, checked, found.problems)
        typer.echo(
            f"{write}: {left:,} lines are left; {second}: {removed:,} went, with the reasons", err=json
        )
    return about


def show_suspects(run: Path, html: Path) -> None:
    """Write a sheet of the pairs that a run's model doubts among those it was trained on."""
    from unicross.commands.show import Bars
    from unicross.data.load import read_splits
    from unicross.hygiene.sheet import SHOWN as AT_LEAST
    from unicross.hygiene.sheet import render_suspects
    from unicross.model import TwoTower
    from unicross.model_folder import has_recipe, located, recipe_of
    from unicross.run import checkpoint_at
    from unicross.suspects import suspects_of

    folder = run if has_recipe(run) else checkpoint_at(run)
    if not has_recipe(folder):
        raise DataError(
            f"{run}: --suspects takes a run: of other data, unicross data ROOT --check --model {run}"
        )
    with Bars():
        items = read_splits(located(folder, recipe_of(folder)).data)[0]
        suspects = suspects_of(TwoTower.load(run), items)
    _write_page(html, render_suspects(items, suspects, AT_LEAST, f"Pairs that {run} doubts"))
    found = suspects.found
    typer.echo(
        f"{len(found.fit):,} captions: about {found.wrong:,} are expected to be wrong, {found.count:,} are "
        "suspects"
    )
    for k in found.order[:SHOWN]:
        typer.echo(
            f"  {items.ids[int(suspects.item[k])].as_py()}: {items.texts[int(suspects.caption[k])].as_py()}"
        )


def _write_page(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"--html {path}: cannot be written: {error.strerror}") from error
    typer.echo(f"with their pictures: {path}", err=True)


def _about(checked: Checked) -> dict[str, Any]:
    """A check as plain data."""
    findings = [
        {
            "kind": finding.kind,
            "id": checked.items.ids[finding.item].as_py(),
            "split": checked.split[finding.item],
            "what": finding.what,
            "twin": None if finding.twin is None else checked.items.ids[finding.twin].as_py(),
            "caption": None if finding.caption is None else checked.items.texts[finding.caption].as_py(),
            "goes": finding.goes,
        }
        for finding in checked.findings
    ]
    return {
        "leaks": len(checked.of_kind("leak")),
        "findings": findings,
        "languages": dict(checked.languages.most_common()),
        "shorter sides": dict(zip(("least", "median", "largest"), checked.sides, strict=True)),
        "expected wrong": checked.wrong,
    }


def _print(checked: Checked) -> None:
    counts = Counter(finding.kind for finding in checked.findings)
    for kind, count in counts.items():
        error = "error: " if kind == "leak" else ""
        typer.echo(f"{error}{count:,} × {kind}")
        for finding in checked.of_kind(kind)[:SHOWN]:
            typer.echo(f"  {checked.name(finding.item)}: {finding.what}")
    if not counts:
        typer.echo("nothing odd was found")
    told = ", ".join(f"{name} {count:,}" for name, count in checked.languages.most_common(5))
    typer.echo(f"languages of captions: {told or 'too few words to tell'}")
    least, median, largest = checked.sides
    typer.echo(f"shorter sides of the pictures: {least} to {largest} pixels, {median} in the middle")
    if checked.wrong is not None:
        typer.echo(f"captions that are expected to be wrong: about {checked.wrong:,}")
    going = len({finding.item for finding in checked.findings if finding.goes})
    typer.echo(f"{going:,} of {len(checked.items):,} items have something that --write leaves out")
