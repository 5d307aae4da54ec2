"""Accuracy over what a network still costs: the picture of a sweep, a line per method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bequest.report.figures import DASHES, INK, MARKERS, SERIES, STYLE, svg
from bequest.sweeping import Cell, Comparison

Cost = Callable[[Cell], float | None]
"""The share of the dense network's cost that a cell has; None = not measured."""


@dataclass(frozen=True)
class Point:
    """A ratio of a method: medians over the seeds, and between what the seeds lie.

    Attributes:
        cell: number of the cell that it opens, that of the first seed.
        x: what is left, in percent of the dense network.
        y: accuracy in percent, or perplexity.
        low: the least of the seeds.
        high: the most.
    """

    cell: int
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A method, criterion and restorer, with its number on the page."""

    method: int
    name: str
    points: Sequence[Point]


def front(lines: Sequence[Line], dense: float, lower: bool) -> list[Point]:
    """The points than which nothing is both cheaper and better, the dearest first.

    Args:
        lines: of all methods.
        dense: the dense network's figure, at 100 %.
        lower: whether smaller figures are better, as perplexities are.
    """
    sign = -1 if lower else 1
    points = [point for line in lines for point in line.points]
    everyone = [(100.0, sign * dense), *((one.x, sign * one.y) for one in points)]

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in everyone)

    best = [one for one in points if not beaten(one.x, sign * one.y)]
    return sorted(best, key=lambda one: -one.x)


def tradeoff(comparison: Comparison, lines: Sequence[Line], what: str) -> str:
    """Every method's figures over what is left, the Pareto front marked by rings.

    Args:
        comparison: whose dense network is at 100 %.
        lines: a line per method.
        what: is left: "MACs", ...

    Returns:
        An ``<svg>`` element; what belongs to a method or a cell says so in ``data-method`` and
        ``data-cell``.
    """
    dense = comparison.figure(comparison.accuracy)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.5), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        axes.axhline(dense, color=INK, linewidth=1, linestyle=(0, (2, 3)))
        for line in lines:
            _draw(axes, line, dense)
        best = front(lines, dense, comparison.of_text)
        method = {point.cell: line.method for line in lines for point in line.points}
        for point in best:
            axes.plot(
                [point.x],
                [point.y],
                gid=f"line-{method[point.cell]}",
                marker="o",
                markersize=12,
                markerfacecolor="none",
                markeredgecolor=INK,
                markeredgewidth=1.2,
                linestyle="none",
            )
        axes.set_xlabel(f"{what} left (% of the dense network)")
        axes.set_ylabel("perplexity" if comparison.of_text else "top-1 accuracy (%)")
        if comparison.of_text:
            axes.set_yscale("log")
        else:
            axes.set_ylim(top=min(102, dense + 4))
        axes.grid(axis="y", linewidth=0.8)
        return svg(figure, f"{axes.get_ylabel()} over {what} left, a line per method")


def _draw(axes: Axes, line: Line, dense: float) -> None:
    colour = SERIES[line.method % len(SERIES)]
    points = line.points
    x = [100.0, *(one.x for one in points)]
    axes.plot(
        x,
        [dense, *(one.y for one in points)],
        gid=f"line-{line.method}",
        color=colour,
        linestyle=DASHES[line.method // len(SERIES) % len(DASHES)],
        linewidth=1.8,
    )
    if any(one.low < one.high for one in points):
        low = [dense, *(one.low for one in points)]
        high = [dense, *(one.high for one in points)]
        band = axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        band.set_gid(f"line-{line.method}")
    for point in points:
        axes.plot(
            [point.x],
            [point.y],
            gid=f"point-{line.method}-{point.cell}",
            color=colour,
            marker=MARKERS[line.method % len(MARKERS)],
            markersize=6.5,
            linestyle="none",
        )
