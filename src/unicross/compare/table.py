"""A comparison as plain data, its JSON and its table: the command line shows it, the report draws it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from unicross.compare.intervals import Difference
from unicross.errors import DataError
from unicross.files import write_text
from unicross.metrics import RECALL_AT
from unicross.reading import LARGEST_TEXT, read_text
from unicross.wording import counted

Match = Literal["epochs", "compute"]

COMPARISON = "comparison.json"


class Spread(BaseModel):
    """Of one metric over the seeds."""

    model_config = ConfigDict(frozen=True)

    mean: float
    sd: float | None
    """None with one seed."""


class RecipeRow(BaseModel):
    """One recipe, as it stands or lengthened, over all seeds. Forwards, compute and minutes are means."""

    model_config = ConfigDict(frozen=True)

    label: str
    recipe: str
    epochs: int
    runs: tuple[str, ...]
    """Run folders in the order of the seeds, relative to the comparison's folder."""
    metrics: dict[str, Spread]
    image_forwards: float
    text_forwards: float
    compute: float
    minutes: float
    against: dict[str, dict[str, Difference]]
    """By the label of another row: this row minus that one, for each metric that both have."""


class Comparison(BaseModel):
    """What `compare` found. The first row is the first recipe as it stands."""

    model_config = ConfigDict(frozen=True)

    match: Match
    seeds: tuple[int, ...]
    n_items: int
    n_images: int
    n_captions: int
    rows: tuple[RecipeRow, ...]
    untrained: tuple[RecipeRow, ...] = ()
    """What recipes began with, a pretrained pair or a checkpoint, before any training."""

    def save(self, folder: Path) -> None:
        """Write `comparison.json` into the folder, beside and renamed."""
        write_text(folder / COMPARISON, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises DataError where there is nothing of the kind."""
        try:
            return cls.model_validate_json(read_text(folder / COMPARISON, LARGEST_TEXT))
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{folder}: no readable {COMPARISON}: run `unicross compare` first: {error}"
            ) from error


def table(comparison: Comparison) -> Table:
    """What the command line shows: a column a recipe; mean ± sd, and differences with 95% intervals.
    Compute is a multiple of the first recipe's."""
    seeds = len(comparison.seeds)
    items = f"{comparison.n_items} items, " if comparison.n_items < comparison.n_images else ""
    shown = Table(
        title=f"{items}{counted(comparison.n_images, 'image')}, {counted(comparison.n_captions, 'caption')}, "
        f"{counted(seeds, 'seed')}; recall in percent"
    )
    rows = (*comparison.untrained, *comparison.rows)
    shown.add_column("")
    for row in rows:
        shown.add_column(row.label, justify="right")
    shown.add_row("epochs", *(str(row.epochs) for row in rows))
    shown.add_row("minutes", *(f"{row.minutes:.1f}" for row in rows))
    shown.add_row("forwards", *(f"{row.image_forwards + row.text_forwards:,.0f}" for row in rows))
    first = comparison.rows[0].compute
    shown.add_row("compute", *(f"{row.compute / first:.2f}" for row in rows))
    for name in shown_metrics(comparison):
        spreads = [row.metrics.get(name) for row in rows]
        shown.add_row(metric_text(name), *(spread_text(spread) if spread else "" for spread in spreads))
    sums = [name for name in ("rsum", "rsum_all") if all(name in row.metrics for row in rows)]
    for label in dict.fromkeys(label for row in rows for label in row.against):
        for name in sums:
            differences = [row.against.get(label, {}).get(name) for row in rows]
            texts = (difference_text(d) if d else "" for d in differences)
            shown.add_row(f"{metric_text(name)} minus {label}'s", *texts)
    if comparison.match == "epochs" and len({row.epochs for row in comparison.rows}) > 1:
        shown.caption = "their epochs differ: each recipe has its own; --match compute adds equal compute"
    return shown


def shown_metrics(comparison: Comparison) -> list[str]:
    """Recalls and their sums that all rows have; i2i and t2t where items have several images."""
    ways = ("i2t", "t2i", "i2i", "t2t") if comparison.n_images > comparison.n_items else ("i2t", "t2i")
    names = [f"{way}/R@{k}" for way in ways for k in RECALL_AT] + ["rsum", "rsum_all"]
    names += [name for name in comparison.rows[0].metrics if name.startswith("rsum on ")]
    return [name for name in names if all(name in row.metrics for row in comparison.rows)]


def metric_text(name: str) -> str:
    """A metric's name for people: `i2t R@1`, `rSum`, `rSum of all four`, `rSum on news`."""
    return "rSum of all four" if name == "rsum_all" else name.replace("/", " ").replace("rsum", "rSum")


def spread_text(spread: Spread) -> str:
    return f"{spread.mean:.1f}" + ("" if spread.sd is None else f" ±{spread.sd:.1f}")


def difference_text(difference: Difference) -> str:
    return f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"
