"""Draws docs/assets/robust_mnist.svg and robust_cifar.svg from the results of these names.

Accuracy and robust instances over the share of units that left: medians as lines, ranges as bands.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.record import RESULTS

CURVES = {  # colours that stay apart for colour-blind eyes (Okabe & Ito)
    "baseline": ("saliency alone (baseline)", "#777777", "s"),
    "stochastic": ("stochastic", "#0072b2", "o"),
    "stochastic + lbyl": ("stochastic, restored by LBYL", "#009e73", "D"),
    "stochastic + regression": ("stochastic, restored by regression", "#d55e00", "^"),
}
PANELS = {
    "top-1": "top-1, %",
    "robust, eps 0.01": "robust instances, ε 0.01",
    "robust, eps 0.05": "robust instances, ε 0.05",
}


def numbers(cell: str) -> tuple[float, float, float]:
    """Median, least and greatest from "94.1 (92.2 to 94.8)"."""
    found = [float(text) for text in re.findall(r"[\d.]+", cell)]
    return found[0], found[1], found[2]


def draw(axes: Axes, rows: list[dict[str, Any]], column: str) -> None:
    """One panel."""
    dense = next(row for row in rows if row["method"] == "dense")
    for method, (label, colour, marker) in CURVES.items():
        points = [dense, *(row for row in rows if row["method"] == method)]
        ratios = [100 * row["ratio"] for row in points]
        middle, low, high = zip(*(numbers(row[column]) for row in points), strict=True)
        axes.fill_between(ratios, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(ratios, middle, color=colour, marker=marker, ms=4.5, lw=1.8, label=label)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)


def picture(name: str, network: str) -> Path:
    """One figure: a row per kind of units, a column per measure."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    kinds = list(dict.fromkeys(row["units"] for row in rows))
    figure, grid = plt.subplots(
        len(kinds), len(PANELS), figsize=(10, 2.9 * len(kinds)), layout="constrained", squeeze=False
    )
    for kind, line in zip(kinds, grid, strict=True):
        for axes, (column, title) in zip(line, PANELS.items(), strict=True):
            draw(axes, [row for row in rows if row["units"] == kind], column)
            axes.set_title(f"{kind}: {title}", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel(f"hidden units that left, % ({network})", fontsize=9)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    target = Path(__file__).parents[1] / f"docs/assets/{name}.svg"
    figure.savefig(target, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return target


def main() -> None:
    """Both figures, as far as they were measured."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bequest"
    for name, network in (("robust_mnist", "MNIST MLP"), ("robust_cifar", "CIFAR-10 CNN")):
        if (RESULTS / f"{name}.json").exists():
            print(picture(name, network))


if __name__ == "__main__":
    main()
