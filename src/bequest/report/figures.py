"""The pictures, as SVG that takes its colours and font from the page it stands in."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

SERIES = (
    *("#6b6f76", "#0072b2", "#d55e00", "#00875f"),
    *("#a03c88", "#9a6a00", "#3d49b8", "#b0324f"),
)
"""Colours of the series on a light page, told apart by colour-blind readers (after Okabe and Ito);
each is replaced by a variable of the page's style sheet, which has other values in the dark."""

INK, _RULE, _TRACK = "#101010", "#d8d8d8", "#e6e6e7"
_VARIABLES = {
    INK: "currentColor",
    _RULE: "var(--rule)",
    _TRACK: "var(--track)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}
MARKERS = "osD^vPX*"
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))  # type: ignore[assignment]
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "bequest",  # the same picture is the same file
    "text.parse_math": False,  # a $ in a layer's name is a $
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": _RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.columnspacing": 1.3,
    "legend.handlelength": 1.6,
}
"""What every picture of a page is drawn with."""
_WIDTH = 5.6
_LONGEST_NAME = 32


@dataclass(frozen=True)
class Bar:
    """One layer: how many channels it has, and how many stay, once or at several ratios."""

    name: str
    total: int
    kept: Sequence[int]


def layers(bars: Sequence[Bar], labels: Sequence[str]) -> str:
    """For every layer the channels that stay, as shares of its width.

    Args:
        bars: the layers from the input to the output.
        labels: what each number of ``bar.kept`` is, the largest first: "stay at 30 %", ...

    Returns:
        An ``<svg>`` element.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(height=1.1 + 0.26 * len(bars))
        rows = range(len(bars))
        axes.barh(rows, [100] * len(bars), color=_TRACK, height=0.68)
        shade = 1.0 if len(labels) == 1 else 0.38  # bars lie over one another: shorter, darker
        for number in range(len(labels)):
            shares = [100 * bar.kept[number] / bar.total for bar in bars]
            axes.barh(rows, shares, color=SERIES[1], alpha=shade, height=0.68, linewidth=0)
        for row, bar in zip(rows, bars, strict=True):
            counts = " · ".join(map(str, bar.kept))
            axes.text(102, row, f"{counts} of {bar.total}", va="center", fontsize=9.5)
        axes.set_yticks(rows, [short(bar.name) for bar in bars], fontsize=9.5)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 50, 100])
        axes.set_xlabel("channels that stay (%)")
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.legend(handles=_legend(labels, shade), loc="outside lower center", ncols=4)
        return svg(figure, "Channels that stay in every layer")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    return figure, axes


def short(name: str) -> str:
    """The end of a long name, which tells layers apart."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _legend(labels: Sequence[str], shade: float) -> list[Patch]:
    """A patch per label in the opacity that its bar has under all longer ones."""
    patches = [
        Patch(color=SERIES[1], alpha=1 - (1 - shade) ** number, linewidth=0, label=label)
        for number, label in enumerate(labels, start=1)
    ]
    return [*patches, Patch(color=_TRACK, linewidth=0, label="leave")]


def svg(figure: Figure, label: str) -> str:
    """The figure as an ``<svg>`` element in the page's colours; ``label`` is read aloud.

    Artists whose gid is "line-METHOD" or "point-METHOD-CELL" can be filtered and opened there.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="line-(\d+)"', r' data-method="\1"', text)
    text = re.sub(
        r' id="point-(\d+)-(\d+)"', r' class="point" data-method="\1" data-cell="\2"', text
    )
    text = _without_idle_names(text)
    width, height = (math.ceil(72 * size) for size in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
    return re.sub(
        r'<svg [^>]*?xmlns="[^"]*"[^>]*>',
        f'{head} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
    )


def _without_idle_names(svg: str) -> str:
    """Without the ids that nothing refers to: several pictures on a page would repeat them."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    return re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
