"""A comparison as tables of the terminal, and as a .csv or .json file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from bequest.cli.output import finite
from bequest.cli.tables import refusal_tables, table, titled
from bequest.measure import Accuracy
from bequest.report import Comparison
from bequest.report.comparison import cost_rows

_COLUMNS = (
    *("criterion", "restorer", "ratio", "top1", "top5", "loss", "images"),
    *("params", "macs", "bytes", "seconds"),
)


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """A table per criterion, restorers by ratios with the best in bold, then what stayed."""
    dense = f"{comparison.accuracy.count:,}"
    what = (
        f"perplexity {comparison.worded(comparison.accuracy)} on {comparison.data}, {dense} tokens"
    )
    if not comparison.of_text:
        top1 = f"{comparison.accuracy.top1:.2f} %"
        what = f"top-1 {top1} on {comparison.data}, {dense} images"
    items: list[RenderableType] = [Text(f"dense: {what}")]
    items += [_accuracies(comparison, criterion) for criterion in comparison.criteria]
    return [*items, *refusal_tables(comparison.refusals())]


def _accuracies(comparison: Comparison, criterion: str) -> RenderableType:
    columns = [
        [comparison.cell(criterion, name, ratio).accuracy for name in comparison.restorers]
        for ratio in comparison.ratios
    ]
    rows = [
        [name, *(_worded(comparison, column, place) for column in columns)]
        for place, name in enumerate(comparison.restorers)
    ]
    header = ["restorer", *(f"{100 * ratio:g} %" for ratio in comparison.ratios)]
    made = table(header, rows)
    made.add_section()
    for what, *shares in cost_rows(comparison, criterion):
        made.add_row(f"{what} left", *shares, style="dim")
    return titled(f"{comparison.figures}; leaving channels chosen by {criterion}", made)


def _worded(comparison: Comparison, column: Sequence[Accuracy], place: int) -> str:
    """An accuracy, in bold where it is the best of the column."""
    figures = [comparison.figure(one) for one in column]
    best = min(figures) if comparison.of_text else max(figures)
    text = comparison.worded(column[place])
    return f"[bold]{text}[/bold]" if figures[place] == best else text


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
