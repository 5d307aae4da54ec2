"""Draws docs/assets/hypersphere-weights.svg and -accuracy.svg from the runs and the results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.hypersphere import trained
from benchmarks.record import RESULTS
from bequest.report.figures import SERIES, STYLE
from bequest.report.histograms import histogram_figure
from bequest.report.sparse import sizes_of

ASSETS = Path(__file__).parents[1] / "docs/assets"
WORDS = {
    "plain": "plain training",
    "penalty at 0.5": "with the penalty at 50 %",
    "penalty at 0.7": "with the penalty at 70 %",
}
CURVES = {"zeroed": "-", "filter": ":", "signed": "--"}


def main() -> None:
    """Sizes of the weights layer by layer, and accuracy over the share of weights pruned."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("build/hypersphere"))
    runs = parser.parse_args().runs
    mpl.use("svg")
    ASSETS.mkdir(exist_ok=True)
    plain, finished = (trained(name, runs) for name in ("plain", "finished"))  # of one scale
    with mpl.rc_context(STYLE):
        labels = WORDS["plain"], "finished with the penalty at 50 %"
        figure = histogram_figure(sizes_of(plain, finished), labels)
        _save(figure, "hypersphere-weights.svg")
        _save(_accuracies(), "hypersphere-accuracy.svg")


def _accuracies() -> Figure:
    """A colour per training, a line style per way to fill the pruned places."""
    measured = json.loads((RESULTS / "hypersphere.json").read_text())
    figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for number, (name, words) in enumerate(WORDS.items()):
        rows = [row for row in measured["rows"] if row["training"] == name]
        x = [0.0, *(100 * row["sparsity"] for row in rows)]
        for filling, style in CURVES.items():
            y = [rows[0]["dense"], *(row[filling] for row in rows)]
            label = f"{words}, {'zeros' if filling == 'zeroed' else f'means ({filling})'}"
            axes.plot(x, y, style, color=SERIES[number + 1], marker="o", ms=4, label=label)
    axes.set_xlabel("weights pruned, %; no retraining (ResNet-20)")
    axes.set_ylabel("CIFAR-10 top-1, %")
    axes.set_ylim(0, 100)
    axes.legend(loc="lower left", fontsize=8.5, handlelength=4)
    return figure


def _save(figure: Figure, name: str) -> None:
    figure.savefig(ASSETS / name, metadata={"Date": None}, facecolor="white")
    print(ASSETS / name)


if __name__ == "__main__":
    main()
