"""Draws the documentation's pictures: docs/assets/resnet56.svg and docs/assets/groups.svg."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tests.architectures.networks import subject

import bequest
from benchmarks.record import RESULTS
from bequest.selection.inspection import GroupView

CURVES = {  # colours that stay apart for colour-blind eyes (Okabe & Ito)
    "none": ("pruned, nothing handed on", "#777777", "s"),
    "merge": ("Neuron Merging", "#e69f00", "^"),
    "lbyl": ("LBYL", "#0072b2", "o"),
    "regression": ("regression, channels by l1", "#009e73", "D"),
}
SETTINGS = {
    ("default", "obs, allocated"): ("regression, channels by obs for a target", "#cc79a7", "v"),
    ("long", "obs, allocated"): ('the same, effort="long"', "#d55e00", "P"),
    ("256 real images", "obs, one ratio"): ("regression, 256 real images, obs", "#000000", "x"),
}
"""Rows of results/effort.json, with as many multiply-accumulates left as those of l1."""

KINDS = {"inner": "#0072b2", "residual": "#d55e00", "output": "#777777"}


def main() -> None:
    """Draws both."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "bequest"
    curves()
    groups()


def curves() -> None:
    """Accuracy against the multiply-accumulates that are left, a curve per method."""
    measured = json.loads((RESULTS / "resnet56.json").read_text())
    rows = [row for row in measured["rows"] if row["criterion"] == "l1"]
    left = {row["ratio"]: row["MACs kept"] for row in rows}
    figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for restorer, (label, colour, marker) in CURVES.items():
        found = [(row["MACs kept"], row[restorer]) for row in rows]
        _curve(axes, measured["dense"], found, label=label, color=colour, marker=marker)
    efforts = json.loads((RESULTS / "effort.json").read_text())["rows"]
    for (effort, channels), (label, colour, marker) in SETTINGS.items():
        chosen = [r for r in efforts if (r["effort"], r["channels"]) == (effort, channels)]
        found = [(left[row["ratio"]], row["top-1, median"]) for row in chosen]
        _curve(axes, measured["dense"], found, label=label, color=colour, marker=marker)
    axes.axhline(measured["dense"], color="#777777", lw=0.8, ls=":")
    axes.set_xlabel("multiply-accumulates left, % (ResNet-56, inner channels)")
    axes.set_ylabel("CIFAR-10 top-1, %")
    axes.set_ylim(0, 100)
    axes.set_xlim(102, 26)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    _save(figure, "resnet56")


def _curve(axes: Axes, dense: float, found: list[tuple[float, float]], **style: str) -> None:
    macs, accuracy = zip((1.0, dense), *sorted(found, reverse=True), strict=True)
    axes.plot([100 * one for one in macs], accuracy, ms=5, lw=2, **style)  # type: ignore[arg-type]


def groups() -> None:
    """Who writes and who reads each group of a small vision transformer."""
    one = subject("hf-vit")
    model = one.build().eval()
    views = bequest.inspect(model, one.example).groups
    owners = [name.rpartition(".")[0] for name, _ in model.named_parameters()]
    met = {name for view in views for name in (*view.producers, *view.consumers)}
    layers = sorted(met, key=lambda name: owners.index(name) if name in owners else -1)
    figure, axes = plt.subplots(figsize=(9.6, 0.22 * len(layers) + 1.2), layout="constrained")
    for column, view in enumerate(views):
        colour = KINDS[view.kind]
        writes, reads = (
            [layers.index(name) for name in names] for names in (view.producers, view.consumers)
        )
        axes.vlines(column, min(writes + reads), max(writes + reads), color=colour, lw=1.5)
        axes.plot([column] * len(writes), writes, "o", color=colour, ms=7)
        axes.plot([column] * len(reads), reads, "o", color=colour, mfc="white", mew=1.5, ms=7)
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.set_xticks(range(len(views)), [_width(view) for view in views], fontsize=8)
    axes.xaxis.tick_top()
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    handles = [Line2D([], [], marker="o", color=c, lw=1.5, label=k) for k, c in KINDS.items()]
    filled = Line2D([], [], marker="o", color="black", lw=0, label="writes the channels")
    ring = Line2D([], [], marker="o", color="black", mfc="white", lw=0, label="reads them")
    figure.legend(
        handles=[*handles, filled, ring], loc="outside lower center", ncols=5, frameon=False
    )
    _save(figure, "groups")


def _width(view: GroupView) -> str:
    return f"{view.size} heads\nof {view.rows}" if view.rows > 1 else f"{view.size}"


def _save(figure: Figure, name: str) -> None:
    target = Path(__file__).parents[1] / f"docs/assets/{name}.svg"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, metadata={"Date": None}, facecolor="white")
    print(target)


if __name__ == "__main__":
    main()
