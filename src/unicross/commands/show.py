"""Showing what goes on: a bar with the time left for whatever takes a while, a line for every epoch."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from datetime import timedelta
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from unicross.progress import progress_shown_by
from unicross.wording import counted

if TYPE_CHECKING:
    from unicross.events import Event

LINE_EVERY_S = 10
"""Seconds between two lines of progress where they go to a file or a pipe."""

FEWEST_PARTS = 4
"""Parts that must be done before a time left is told: the first ones compile, warm up and fill caches."""

SHORTEST_S = 1.0
"""Seconds that the time left is reckoned from at least: parts of a batch are told of all at once."""


def output(*, stderr: bool = False) -> Console:
    """Where results are printed; wide where it is a file or a pipe, so that nothing in it is folded."""
    console = Console(stderr=stderr, highlight=False)
    if not console.file.isatty():
        console.width = 200
    return console


class Bars:
    """Shows how far work has come: bars that go when it is done, or plain lines where there is no terminal.

    While it is open it shows all that is tracked (see `progress`).
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or output(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[left]}", style="progress.remaining"),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, _Pace] = {}  # by what is done
        self._line_at = 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(progress_shown_by(self.show))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if self._progress.live.is_started:  # stopping prints a line
            self._progress.stop()

    def show(self, what: str, done: int, total: int, figures: str = "") -> None:
        """`done` of `total` parts of something are done; it is forgotten when all are."""
        now = time.monotonic()
        pace = self._paces.setdefault(what, _Pace(now, done))
        left = pace.left(now, done, total)
        if done >= total:
            del self._paces[what]
        if self.console.file.isatty():  # rich takes a pipe for a terminal where FORCE_COLOR is set
            self._bar(what, done, total, figures, left)
        elif pace.before < done < total and now - max(pace.began, self._line_at) >= LINE_EVERY_S:
            self._line_at = now
            told = "; ".join(text for text in (left, figures) if text)
            self.console.print(
                f"{what}: {done} of {total}" + (f", {told}" if told else ""), markup=False, highlight=False
            )

    def forget(self) -> None:
        """Drop what was begun and will not be done."""
        for what in list(self._tasks):
            self._progress.remove_task(self._tasks.pop(what))
        self._paces.clear()

    def _bar(self, what: str, done: int, total: int, figures: str, left: str) -> None:
        if what not in self._tasks:
            if done >= total:
                return
            self._progress.start()
            self._tasks[what] = self._progress.add_task(what, total=total, figures=figures, left=left)
        self._progress.update(self._tasks[what], completed=done, total=total, figures=figures, left=left)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(what))


class _Pace:
    """How fast the parts of something get done, by the latest half to three quarters of them."""

    def __init__(self, began: float, before: int) -> None:
        self.began = began
        """When it was first heard of, in seconds."""
        self.before = before
        """Parts that were done then."""
        self._marks = ((began, 0), (began, 0))  # when, and how many parts were done since `began`

    def left(self, now: float, done: int, total: int) -> str:
        """The time left, such as "0:00:18 left"; empty where too little was done to tell."""
        parts = done - self.before
        if parts >= max(1, 2 * self._marks[1][1]):
            self._marks = (self._marks[1], (now, parts))
        since, already = self._marks[0]
        if parts < FEWEST_PARTS or not 0 < already < parts or now - since < SHORTEST_S:
            return ""
        return f"{timedelta(seconds=round((now - since) / (parts - already) * (total - done)))} left"


class Listening(Bars):
    """A listener of training's events that draws them on the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._epochs = self._steps = 0
        self._losses: list[float] = []

    def __call__(self, event: Event) -> None:
        match event["kind"]:
            case "decoding":
                self.show("decoding pictures", event["done"], event["total"])
            case "start":
                for sentence in event.get("preparation", ()):
                    self._say(f"[dim]{escape(sentence)}[/]")
                self.forget()
                self._losses.clear()
                self._epochs, self._steps = event["epochs"], event["steps"]
                self.show("training", event["step"], event["steps"])
                self._say(f"[dim]{event['items']} items, {event['steps']} steps, run in {event['run']}[/]")
            case "step":
                self._losses.append(event["loss"])
                figures = (
                    f"{event['stage']}  loss {event['loss']:.3f}  {event['pairs_per_second']:.0f} pairs/s"
                )
                self.show("training", event["step"], self._steps, figures)
            case "round":
                self._say(_round_line(event))
            case "fitting":
                self._say("[dim]fitting heads to the towers: they read each picture and caption once[/]")
            case "heads":
                matched = event.get("matched")
                more = f", with {counted(matched, 'matched picture')}" if matched else ""
                self._say(f"  heads fitted in {event['seconds']:.0f} s{more}")
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
            case "hubness":
                self._say(_hubness_line(event))
            case "note":
                self._say(f"[yellow]note:[/] {event['text']}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False)


def _hubness_line(event: Event) -> str:
    if "rsum" not in event:
        return "  hubs corrected"
    figures = f"rSum {event['rsum']:.1f} with it, {event['without']:.1f} without"
    return f"  hubs {'corrected' if event['corrected'] else 'left as they are'}: {figures}"


def _round_line(event: Event) -> str:
    parts = []
    if "suspects" in event:
        parts.append(f"{counted(event['suspects'], 'pair')} left out that look wrong")
    if "clusters" in event:
        parts.append(f"{event['clusters']} clusters of {event['size_min']}-{event['size_max']}")
    if "hardness" in event:
        parts.append(f"hardness {event['hardness']:.3f} (random {event['hardness_random']:.3f})")
    if "masked" in event:
        parts.append(f"{100 * event['masked']:.2f}% of the pairs masked")
    return "  " + ", ".join(parts)
