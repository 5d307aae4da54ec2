"""Draws docs/assets/resnet56.svg, the README's picture, from results/resnet56.json."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.record import RESULTS

CURVES = {  # colours that stay apart for colour-blind eyes (Okabe & Ito)
    "none": ("pruned, nothing handed on", "#777777", "s"),
    "merge": ("Neuron Merging", "#e69f00", "^"),
    "lbyl": ("LBYL", "#0072b2", "o"),
    "regression": ("regression", "#009e73", "D"),
}


def main() -> None:
    """Accuracy against the share of channels that left, one curve per restorer."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bequest"
    measured = json.loads((RESULTS / "resnet56.json").read_text())
    rows = [row for row in measured["rows"] if row["criterion"] == "l1"]
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for restorer, (label, colour, marker) in CURVES.items():
        ratios = [0.0, *(row["ratio"] for row in rows)]
        accuracy = [measured["dense"], *(row[restorer] for row in rows)]
        axes.plot(ratios, accuracy, color=colour, marker=marker, ms=5, lw=2, label=label)
    axes.axhline(measured["dense"], color="#777777", lw=0.8, ls=":")
    axes.set_xlabel("share of the inner channels that left (ResNet-56)")
    axes.set_ylabel("CIFAR-10 top-1, %")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    target = Path(__file__).parents[1] / "docs/assets/resnet56.svg"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None}, facecolor="white")
    print(target)


if __name__ == "__main__":
    main()
