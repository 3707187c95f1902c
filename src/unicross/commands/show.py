"""Showing a run: a progress bar while it trains, a line for every epoch."""

from __future__ import annotations

import math
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from unicross.run import Event


def output(*, stderr: bool = False) -> Console:
    """Where results are printed; wide where it is a file or a pipe, so that nothing in it is folded."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


class Listening:
    """A listener of training's events that draws them on the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or output(stderr=True)
        self._epochs = 0
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._losses: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:  # stopping prints a line
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        self._progress.start()
        match event["kind"]:
            case "decoding":
                self._advance("decoding", event["done"], event["total"], "")
            case "start":
                for sentence in event.get("preparation", ()):
                    self._console.print(f"[dim]{escape(sentence)}[/]")
                self._tasks.clear()
                self._losses.clear()
                self._epochs = event["epochs"]
                self._advance("training", event["step"], event["steps"], "")
                self._say(f"[dim]{event['items']} items, {event['steps']} steps, run in {event['run']}[/]")
            case "step":
                self._losses.append(event["loss"])
                figures = (
                    f"{event['stage']}  loss {event['loss']:.3f}  {event['pairs_per_second']:.0f} pairs/s"
                )
                self._progress.update(self._tasks["training"], completed=event["step"], figures=figures)
            case "round":
                self._say(_round_line(event))
            case "fitting":
                self._say("[dim]fitting heads to the towers: they read each picture and caption once[/]")
            case "heads":
                self._say(f"  heads fitted in {event['seconds']:.0f} s")
            case "epoch":
                head = f"epoch {event['epoch']}/{self._epochs} [bold]{event['stage']}[/]"
                loss = fmean(self._losses) if self._losses else math.nan
                self._losses.clear()
                self._say(f"{head}  loss {loss:.3f}  {event['pairs_per_second']:.0f} pairs/s")
            case "eval":
                self._say(
                    "  ".join(
                        [f"  rSum [bold]{event['rsum']:.1f}[/]"]
                        + [
                            f"{way} R@1/5/10 "
                            + " / ".join(f"{event[f'{way}/R@{k}']:.1f}" for k in (1, 5, 10))
                            for way in ("i2t", "t2i")
                        ]
                    )
                )
            case "forgetting":
                self._say(f"  on {event['data']}: rSum {event['rsum']:.1f}")
            case "interpolation":
                rsums = ", ".join(
                    f"{share}: {' + '.join(f'{x:.1f}' for x in (rsum, *event['elsewhere'][share].values()))}"
                    for share, rsum in event["rsums"].items()
                )
                self._say(
                    f"  {event['share']:g} of the way from the first weights to the best (rSum {rsums})"
                )
            case "note":
                self._say(f"[yellow]note:[/] {event['text']}")

    def _advance(self, name: str, done: int, total: int, figures: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, figures=figures)
        self._progress.update(self._tasks[name], completed=done, total=total, figures=figures)
        if name == "decoding" and done == total:
            self._progress.remove_task(self._tasks.pop(name))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def _round_line(event: Event) -> str:
    parts = []
    if "matched" in event:
        parts.append(f"{event['matched']} pseudo-pairs of {event['unpaired']}")
    if "clusters" in event:
        parts.append(f"{event['clusters']} clusters of {event['size_min']}-{event['size_max']}")
    if "hardness" in event:
        parts.append(f"hardness {event['hardness']:.3f} (random {event['hardness_random']:.3f})")
    if "masked" in event:
        parts.append(f"{100 * event['masked']:.2f}% of the pairs masked")
    return "  " + ", ".join(parts)
