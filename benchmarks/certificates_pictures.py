"""Draws docs/assets/certificates.svg from results/certificates.json.

The certified change of the MLP, pruned in steps, over the share of its units that left: by
intervals, by CROWN on the two networks as one, by back-substitution of the difference; and found.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.record import RESULTS

CURVES = {  # colours that stay apart for colour-blind eyes (Okabe & Ito)
    "intervals": ("intervals", "#777777", "s"),
    "CROWN": ("CROWN (auto_LiRPA)", "#d55e00", "^"),
    "back-substitution": ("back-substitution of the difference", "#0072b2", "o"),
    "found": ("found by gradient ascent", "#009e73", "D"),
}
PANELS = {0.01: "boxes of ε 0.01", 0.05: "boxes of ε 0.05", "all": "all inputs in 0..1"}


def picture() -> Path:
    """One panel per size of the boxes, widths on a logarithmic axis."""
    mpl.rcParams["svg.hashsalt"] = "bequest"
    rows = json.loads((RESULTS / "certificates.json").read_text())["rows"]
    chosen = [one for one in rows if one["network"] == "mlp" and one["restorer"] == "stochastic"]
    figure, grid = plt.subplots(1, len(PANELS), figsize=(10, 3), layout="constrained")
    for axes, (eps, title) in zip(grid, PANELS.items(), strict=True):
        points = [one for one in chosen if one["eps"] == eps]
        ratios = [100 * one["ratio"] for one in points]
        for column, (label, colour, marker) in CURVES.items():
            widths = [one[column] for one in points]
            axes.plot(ratios, widths, color=colour, marker=marker, ms=4.5, lw=1.8, label=label)
        axes.set(yscale="log", title=title, xlabel="units that left, %")
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("width of the change")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path = Path(__file__).parents[1] / "docs" / "assets" / "certificates.svg"
    figure.savefig(path, metadata={"Date": None})
    return path


if __name__ == "__main__":
    print(picture())
