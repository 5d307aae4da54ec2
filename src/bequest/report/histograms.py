"""How large the weights of each layer are, before and after, as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from bequest.report.figures import SERIES, STYLE, short, svg

_COLUMNS = 4
_LARGEST = 3.0
_BINS = [_LARGEST * edge / 30 for edge in range(31)]


@dataclass(frozen=True)
class Sizes:
    """|w| of one layer's weights, in units of the root mean square of each one's filter.

    Attributes:
        layer: its name.
        before: one number per weight.
        after: the same.
    """

    layer: str
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def histograms(layers: Sequence[Sizes], labels: tuple[str, str] = ("before", "after")) -> str:
    """Small pictures side by side, one per layer; all share the axes.

    Args:
        layers: from the input to the output.
        labels: what the two histograms of a picture are.

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context(STYLE):
        figure = histogram_figure(layers, labels)
        figure.patch.set_visible(False)
        return svg(figure, "Sizes of the weights of every layer before and after")


def histogram_figure(layers: Sequence[Sizes], labels: tuple[str, str]) -> Figure:
    """The same as a matplotlib figure."""
    rows = math.ceil(len(layers) / _COLUMNS)
    figure = Figure(figsize=(7.2, 0.9 + 1.15 * rows), layout="constrained")
    grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes, layer in zip(grid.flat, layers, strict=False):
        _draw(axes, layer)
    for axes in grid.flat[len(layers) :]:
        axes.set_axis_off()
    # Of the largest bar only the foot is of interest: zeros fill the first bin after pruning.
    grid[0, 0].set_ylim(0, 15)
    for axes in grid[:, 0]:
        axes.set_ylabel("weights, %", fontsize=8)
    figure.supxlabel("|w| / root mean square of its filter", fontsize=9.5)
    colours = (SERIES[0], SERIES[1])
    handles = [
        Patch(color=colour, alpha=0.6, linewidth=0, label=label)
        for colour, label in zip(colours, labels, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _draw(axes: Axes, layer: Sizes) -> None:
    axes.patch.set_visible(False)
    for values, colour in ((layer.before, SERIES[0]), (layer.after, SERIES[1])):
        shares = np.full(len(values), 100 / max(len(values), 1))
        axes.hist(values.clip(0, _LARGEST), _BINS, weights=shares, color=colour, alpha=0.6)
    axes.set_title(short(layer.layer), fontsize=8)
    axes.tick_params(labelsize=7.5)
