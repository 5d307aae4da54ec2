"""A sweep as tables of the terminal, and as a .csv or .json file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from bequest.cli.output import finite
from bequest.cli.tables import refusal_tables, table, titled
from bequest.errors import ModelError, UsageError
from bequest.report.comparison import cost_rows, worded
from bequest.selection.outcome import nothing_pruned
from bequest.sweeping import Cell, Comparison, Failure, Sweep

_COLUMNS = (
    *("criterion", "restorer", "ratio", "top1", "top5", "loss", "images"),
    *("params", "macs", "bytes", "seconds", "seed", "latency_ms", "network"),
)


def sweep_tables(sweep: Sweep) -> list[RenderableType]:
    """Per network a table per criterion, then what stayed; at the end what failed."""
    items: list[RenderableType] = []
    for one in sweep.comparisons:
        if len(sweep.comparisons) > 1:
            items.append(Text(one.model, style="bold underline"))
        items += comparison_tables(one)
    if sweep.failures:
        items.append(_failures(sweep.failures))
    return items


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """A table per criterion, restorers by ratios with the best in bold, then what stayed."""
    figure = worded(comparison, comparison.figure(comparison.accuracy))
    count = f"{comparison.accuracy.count:,}"
    what = f"top-1 {figure} % on {comparison.data}, {count} images"
    if comparison.of_text:
        what = f"perplexity {figure} on {comparison.data}, {count} tokens"
    items: list[RenderableType] = [Text(f"dense: {what}")]
    items += [_accuracies(comparison, criterion) for criterion in comparison.criteria]
    return [*items, *refusal_tables(comparison.refusals())]


def _accuracies(comparison: Comparison, criterion: str) -> RenderableType:
    columns = [
        [comparison.median(criterion, name, ratio) for name in comparison.restorers]
        for ratio in comparison.ratios
    ]
    rows = [
        [escape(name), *(_worded(comparison, column, place) for column in columns)]
        for place, name in enumerate(comparison.restorers)
    ]
    header = ["restorer", *(f"{100 * ratio:g} %" for ratio in comparison.ratios)]
    made = table(header, rows)
    made.add_section()
    for what, *shares in cost_rows(comparison, criterion):
        made.add_row(f"{what} left", *shares, style="dim")
    figures = "Perplexity" if comparison.of_text else "Top-1 in percent"
    if len(comparison.seeds) > 1:
        figures += f", medians of {len(comparison.seeds)} seeds"
    return titled(f"{figures}; leaving channels chosen by {criterion}", made)


def _worded(comparison: Comparison, column: Sequence[float | None], place: int) -> str:
    """An accuracy, in bold where it is the best of the column."""
    figures = [one for one in column if one is not None]
    text = worded(comparison, column[place])
    if not figures or column[place] != (min if comparison.of_text else max)(figures):
        return text
    return f"[bold]{text}[/bold]"


def _failures(failures: Sequence[Failure]) -> RenderableType:
    rows = [(escape(str(one.key)), escape(one.reason)) for one in failures]
    return titled("Failed", table(("cell", "why"), rows, left=2))


def encode(sweep: Sweep, suffix: str) -> str:
    """The whole sweep (``.json``), or a line per cell (``.csv``), dense networks first."""
    if suffix == ".json":
        return json.dumps(finite(sweep.to_json()), indent=2, allow_nan=False)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in sweep.comparisons:
        writer.writerow(_line(one, Cell("", "dense", 0.0, one.accuracy, one.cost, (), (), 0.0)))
        writer.writerows(_line(one, cell) for cell in one.cells)
    return buffer.getvalue()


def _line(comparison: Comparison, cell: Cell) -> tuple[object, ...]:
    accuracy, cost = cell.accuracy, cell.cost
    return (
        *(cell.criterion, cell.restorer, cell.ratio),
        *(accuracy.top1, accuracy.top5, accuracy.loss, accuracy.count),
        *(cost.params, cost.macs, cost.bytes, cell.seconds or "", cell.seed),
        "" if cell.timed is None else cell.timed[1].median,
        comparison.model,
    )


def require_done(sweep: Sweep) -> None:
    """Refuses to be content with a sweep of which cells failed, or that pruned nothing at all.

    Raises:
        BequestError: they did.
    """
    cells = [cell for one in sweep.comparisons for cell in one.cells]
    if sweep.failures:
        first = sweep.failures[0]
        error = UsageError if not cells and first.exit_code == 2 else ModelError
        total = len(cells) + len(sweep.failures)
        raise error(f"{len(sweep.failures)} of {total} cells failed; {first.key}: {first.reason}")
    idle = [nothing_pruned(one.ratio, one.groups, one.refused) for one in cells if one.ratio]
    if idle and None not in idle:
        raise ModelError(str(idle[0]))
