"""The figures, as SVG text that takes its ink from the page, so that it suits light and dark.

Lines of a variant: one colour; its seeds thin, their mean thick.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unicross.compare.intervals import Difference
from unicross.events import Event
from unicross.report.contents import Run, Variant
from unicross.training.rounds import Clusters

INK = "#010203"
"""Stands for the page's text colour, which it is replaced with."""

PALETTE = ("#3f8fd2", "#e0782f", "#3fa66b", "#a974d8", "#d5556b", "#2fa8a8", "#b08d3c", "#8a8f98")
"""Readable on white and on near black."""

UNITS = ((1e6, "PFLOP"), (1e3, "TFLOP"), (1.0, "GFLOP"))
"""Of compute, in the log's GFLOP."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unicross",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def learning_curves(variants: Sequence[Variant]) -> str | None:
    """rSum of validation by epoch, and the image-text loss by step."""
    return _draw(
        [
            ("validation rSum", "epoch", lambda axes: _lines(axes, variants, _evaluations("epoch", "rsum"))),
            ("image–text loss", "step", lambda axes: _lines(axes, variants, _losses)),
        ]
    )


def against_compute(variants: Sequence[Variant]) -> str | None:
    """Recall by compute spent."""
    spent = [e["compute"] for v in variants for run in v.runs for e in run.of_kind("eval", "compute")]
    unit, name = next(((u, n) for u, n in UNITS if max(spent, default=0) >= u), UNITS[-1])

    def panel(metric: str, title: str) -> tuple[str, str, Callable[[Axes], bool]]:
        points = _evaluations("compute", metric, x_unit=unit)
        return title, f"{name} spent", lambda axes: _lines(axes, variants, points)

    return _draw([panel("i2t/R@1", "i2t R@1"), panel("t2i/R@1", "t2i R@1"), panel("rsum", "rSum")])


def rounds(variants: Sequence[Variant]) -> str | None:
    """How hard the clustered batches are, round by round, and what is masked."""

    def hardness(axes: Axes) -> bool:
        drawn = _lines(axes, variants, _rounds("hardness"))
        return _lines(axes, variants, _rounds("hardness_random"), dashed=True) or drawn

    return _draw(
        [
            ("in-batch negatives' mean similarity (dashed: random)", "epoch", hardness),
            ("pairs masked, percent", "epoch", lambda axes: _lines(axes, variants, _rounds("masked", 100))),
        ]
    )


def differences(variants: Sequence[Variant], metric: str = "rsum") -> str | None:
    """Each row's difference to its references with the 95% interval."""
    bars: list[tuple[str, Difference, int]] = [
        (f"{variant.label} − {other}", found[metric], number)
        for number, variant in enumerate(variants)
        for other, found in variant.row.against.items()
    ]
    if not bars:
        return None

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.9 + 0.36 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for y, (_, bar, number) in enumerate(reversed(bars)):
            axes.plot([bar.low, bar.high], [y, y], color=colour(number), linewidth=3, solid_capstyle="round")
            axes.plot([bar.mean], [y], "o", color=colour(number), markersize=8)
        axes.axvline(0, color=INK, linewidth=1, alpha=0.6)
        axes.set_yticks(range(len(bars)), [name for name, _, _ in reversed(bars)])
        axes.set_ylim(-0.6, len(bars) - 0.4)
        axes.set_xlabel("difference of rSum, 95% interval over images and seeds")
        axes.grid(axis="y", visible=False)
        return _svg(figure)


def cluster_map(clusters: Clusters, shown: Sequence[int]) -> str:
    """Training items on the first two principal components of their joint embedding; `shown` in colour."""
    joint = np.add(clusters.image, clusters.text, dtype=np.float32)  # [N, D]
    paired = clusters.cluster >= 0
    centred = joint[paired] - joint[paired].mean(axis=0)
    _, axes_of_variance = np.linalg.eigh(centred.T @ centred)  # [D, N] @ [N, D] -> [D, D], ascending
    xy = centred @ axes_of_variance[:, -1:-3:-1]  # [N, D] @ [D, 2] -> [N, 2]
    of_point = clusters.cluster[paired]

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 5.2), layout="constrained", dpi=150)
        axes = figure.subplots()
        # Curve are a picture within the SVG: thousands of shapes would make the page heavy.
        axes.scatter(xy[:, 0], xy[:, 1], s=5, color="#8a8f98", alpha=0.35, linewidth=0, rasterized=True)
        marks = cycle("osD^vPX*")
        for number, cluster in enumerate(shown):
            mine = of_point == cluster
            style: dict[str, Any] = {"marker": next(marks), "color": colour(number), "linewidth": 0}
            axes.scatter(
                xy[mine, 0], xy[mine, 1], s=28, label=f"cluster {cluster} ({mine.sum()} items)", **style
            )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


Curve = Callable[[Run], tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
"""x and y of a run's line; empty where its log has none."""


def _columns(
    events: Sequence[Event], x: str, y: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Values by x; of events with the same x, as a resumed run may log, the last."""
    values = {float(event[x]): float(event[y]) for event in events}
    return np.array(list(values)), np.array(list(values.values()))


def _evaluations(x: str, y: str, x_unit: float = 1.0) -> Curve:
    def points(run: Run) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        xs, ys = _columns(run.of_kind("eval", x, y), x, y)
        return xs / x_unit, ys

    return points


def _rounds(y: str, factor: float = 1.0) -> Curve:
    def points(run: Run) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        xs, ys = _columns(run.of_kind("round", "epoch", y), "epoch", y)
        return xs, ys * factor

    return points


def _losses(run: Run, n: int = 80) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The image-text loss, averaged over stretches so that about `n` points are drawn."""
    xs, ys = _columns(run.of_kind("step", "step", "loss/image_text"), "step", "loss/image_text")
    parts = np.array_split(np.arange(len(xs)), min(n, len(xs)) or 1)
    return np.array([xs[p].mean() for p in parts if len(p)]), np.array(
        [ys[p].mean() for p in parts if len(p)]
    )


def _lines(axes: Axes, variants: Sequence[Variant], points: Curve, *, dashed: bool = False) -> bool:
    """Draw a line a seed and their mean, for each variant that has any. Says whether it drew."""
    drawn = False
    for number, variant in enumerate(variants):
        lines = [(xs, ys) for xs, ys in map(points, variant.runs) if len(xs)]
        if not lines:
            continue
        drawn = True
        style: dict[str, Any] = {"color": colour(number), "linestyle": "--" if dashed else "-"}
        if len(lines) > 1:
            for xs, ys in lines:
                axes.plot(xs, ys, linewidth=0.8, alpha=0.45, **style)
        together = min(len(xs) for xs, _ in lines)  # of a run that is not finished there is less
        x, y = (np.mean([line[i][:together] for line in lines], axis=0) for i in (0, 1))
        mark: dict[str, Any] = {"marker": "o" if together <= 30 else "", "markersize": 4}
        axes.plot(x, y, linewidth=2, label=None if dashed else variant.label, **mark, **style)
    return drawn


def _draw(panels: Sequence[tuple[str, str, Callable[[Axes], bool]]]) -> str | None:
    """Panels (title, x label, drawing) side by side under one legend; None where nothing was drawn."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        drawn = False
        for axes, (title, x_label, draw) in zip(all_axes, panels, strict=True):
            drawn = draw(axes) or drawn
            axes.set_title(title)
            axes.set_xlabel(x_label)
            if x_label in ("epoch", "step"):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not drawn:
            return None
        named: dict[str, Artist] = {}
        for axes in all_axes:
            handles, labels = axes.get_legend_handles_labels()
            named.update(zip(labels, handles, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(4, len(named)))
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
