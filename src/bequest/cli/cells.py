"""A comparison as tables of the terminal, and as a .csv or .json file."""

from __future__ import annotations

import csv
import io
import json

from rich.console import RenderableType
from rich.text import Text

from bequest.cli.output import finite
from bequest.cli.tables import refusal_tables, table, titled
from bequest.report import Comparison
from bequest.report.comparison import cost_rows

_COLUMNS = (
    *("criterion", "restorer", "ratio", "top1", "top5", "loss", "images"),
    *("params", "macs", "bytes", "seconds"),
)


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """A table per criterion, restorers by ratios with the best in bold, then what stayed."""
    dense = comparison.accuracy
    items: list[RenderableType] = [
        Text(f"dense: top-1 {dense.top1:.2f} % on {comparison.data}, {dense.count:,} images")
    ]
    items += [_accuracies(comparison, criterion) for criterion in comparison.criteria]
    return [*items, *refusal_tables(comparison.refusals())]


def _accuracies(comparison: Comparison, criterion: str) -> RenderableType:
    columns = [
        [comparison.cell(criterion, name, ratio).accuracy.top1 for name in comparison.restorers]
        for ratio in comparison.ratios
    ]
    rows = [
        [name, *(_worded(column[place], max(column)) for column in columns)]
        for place, name in enumerate(comparison.restorers)
    ]
    header = ["restorer", *(f"{100 * ratio:g} %" for ratio in comparison.ratios)]
    made = table(header, rows)
    made.add_section()
    for what, *shares in cost_rows(comparison, criterion):
        made.add_row(f"{what} left", *shares, style="dim")
    return titled(f"Top-1 in percent; leaving channels chosen by {criterion}", made)


def _worded(top1: float, best: float) -> str:
    return f"[bold]{top1:.2f}[/bold]" if top1 == best else f"{top1:.2f}"


def encode(comparison: Comparison, suffix: str) -> str:
    """The whole comparison (``.json``), or a line per cell, the dense network first (``.csv``)."""
    if suffix == ".json":
        return json.dumps(finite(comparison.to_json()), indent=2, allow_nan=False)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    entries = [
        ("", "dense", 0.0, comparison.accuracy, comparison.cost, ""),
        *(
            (c.criterion, c.restorer, c.ratio, c.accuracy, c.cost, c.seconds)
            for c in comparison.cells
        ),
    ]
    for criterion, restorer, ratio, accuracy, cost, seconds in entries:
        measured = (accuracy.top1, accuracy.top5, accuracy.loss, accuracy.count)
        costs = (cost.params, cost.macs, cost.bytes)
        writer.writerow((criterion, restorer, ratio, *measured, *costs, seconds))
    return buffer.getvalue()
