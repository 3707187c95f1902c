"""Fills `page.html` with what was contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unicross.compare.table import difference_text, spread_text
from unicross.data.items import Items
from unicross.data.load import read_splits
from unicross.errors import UnicrossError
from unicross.metrics import RECALL_AT
from unicross.report import examples, figures
from unicross.report.contents import Contents, Variant
from unicross.result import kinds_of

SHOWN = (
    *(f"{way}/R@{k}" for way in ("i2t", "t2i") for k in RECALL_AT),
    *("rsum", "i2t/median_rank", "t2i/median_rank", "i2i/R@1", "t2t/R@1", "rsum_all"),
)
"""Metrics in the table, where there are any."""


def render(contents: Contents) -> str:
    """The whole page. Text from data and recipes is escaped; figures are ours."""
    train, validation, problem = _items(contents)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    variants = contents.variants
    album = examples.Album(validation)
    return environment.get_template("page.html").render(
        title=contents.title,
        comparison=contents.comparison,
        table=_table(variants),
        by_kind=_by_kind(variants),
        references=list(dict.fromkeys(label for v in variants for label in v.row.against)),
        difference_text=difference_text,
        colour=figures.colour,
        problem=problem,
        differences=_markup(figures.differences(variants)),
        curves=_markup(figures.learning_curves(variants)),
        compute=_markup(figures.against_compute(variants)),
        rounds=_markup(figures.rounds(variants)),
        clusters=_clusters(variants, train),
        contest=_contest(contents, album),
        confusions=_confusions(variants, album),
        variants=variants,
    )


def _markup(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)


def _items(contents: Contents) -> tuple[Items, Items, str | None]:
    """Training and validation items, or the reason why there are none: a report does without pictures."""
    try:
        train, validation, _ = read_splits(contents.variants[0].runs[0].recipe.data)
    except UnicrossError as error:
        return Items.of([]), Items.of([]), f"No pictures are shown, because the data cannot be read: {error}"
    return train, validation, None


def _table(variants: Sequence[Variant]) -> dict[str, Any]:
    """Headings, and for each row its rSum and the other metrics: the text, and whether it is the best."""
    names = [n for n in SHOWN if any(n in variant.row.metrics for variant in variants)]
    columns = {name: _cells(variants, name) for name in names}
    rsum = columns.pop("rsum", [{"text": "", "best": False}] * len(variants))
    rows = [
        {"row": variant.row, "rsum": rsum[i], "cells": [column[i] for column in columns.values()]}
        for i, variant in enumerate(variants)
    ]
    return {"headings": [_heading(name) for name in columns], "rows": rows}


def _by_kind(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """A row for each direction from or between languages or fields: what it is, and R@1 of each variant."""
    metrics = dict.fromkeys(name for variant in variants for name in variant.row.metrics)
    kinds = kinds_of(metrics)
    rows = {f"text to image, {kind}": f"t2i_{kind}/R@1" for kind in kinds}
    rows |= {f"text to text, {one} to {other}": f"t2t_{one}_{other}/R@1" for one in kinds for other in kinds}
    return [{"what": what, "cells": _cells(variants, name)} for what, name in rows.items() if name in metrics]


def _cells(variants: Sequence[Variant], name: str) -> list[dict[str, Any]]:
    """A metric of each variant: the text, and whether it is the best."""
    spreads = [variant.row.metrics.get(name) for variant in variants]
    means = [spread.mean for spread in spreads if spread is not None]
    best = min(means) if name.endswith("median_rank") else max(means)
    return [
        {"text": "", "best": False}
        if spread is None
        else {"text": spread_text(spread), "best": len(means) > 1 and spread.mean == best}
        for spread in spreads
    ]


def _heading(metric: str) -> str:
    way, _, name = metric.rpartition("/")
    return f"{way} {name.removesuffix('_rank')}"


def _clusters(variants: Sequence[Variant], train: Items) -> dict[str, Any] | None:
    """The map of the last clustered variant's first seed, and members of a few clusters."""
    for variant in reversed(variants):
        clusters = variant.runs[0].clusters()
        if clusters is None:
            continue
        shown = examples.spread_clusters(clusters)
        album = examples.Album(train)
        members = []
        if len(train) == len(clusters.cluster):
            members = [(c, examples.cluster_members(clusters, c, train, album)) for c in shown[:4]]
        return {
            "label": variant.label,
            "count": int(clusters.cluster.max()) + 1,
            "map": Markup(figures.cluster_map(clusters, shown)),
            "members": members,
        }
    return None


def _contest(contents: Contents, album: examples.Album) -> dict[str, Any] | None:
    """The first recipe, at equal compute where there is such a row, and the best row of another recipe."""
    evaluated = [variant for variant in contents.variants if variant.results]
    first = [v for v in evaluated if v.row.recipe == contents.variants[0].row.recipe]
    others = [v for v in evaluated if v.row.recipe != contents.variants[0].row.recipe]
    if not first or not others:
        return None
    a, b = first[-1], max(others, key=lambda variant: variant.row.metrics["rsum"].mean)
    return {"a": a.label, "b": b.label, "found": examples.contest(a, b, album)}


def _confusions(variants: Sequence[Variant], album: examples.Album) -> dict[str, Any] | None:
    evaluated = [variant for variant in variants if variant.results]
    if not evaluated:
        return None
    best = max(evaluated, key=lambda variant: variant.row.metrics["rsum"].mean)
    return {
        "label": best.label,
        "captions": examples.confused_captions(best, album),
        "pictures": examples.confused_pictures(best, album),
    }
