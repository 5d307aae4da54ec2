"""Restorers side by side: the page of a sweep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bequest.artifact.plan import Refusal
from bequest.report import wording
from bequest.report.figures import Bar, layers
from bequest.report.numbered import Numbered, lines_of, method_of
from bequest.report.page import Page, Picture, Section, Table, render
from bequest.report.tradeoff import Cost, tradeoff
from bequest.sweeping import Cell, Comparison, Sweep


def worded(comparison: Comparison, figure: float | None) -> str:
    """What networks are compared by, as people read it."""
    if figure is None:
        return "failed"
    return wording.perplexity(figure) if comparison.of_text else f"{figure:.2f}"


def reached(comparison: Comparison) -> str:
    """What the dense network reaches, and on how much."""
    accuracy, count = comparison.accuracy, f"{comparison.accuracy.count:,}"
    figure = worded(comparison, comparison.figure(accuracy))
    if comparison.of_text:
        return f"a perplexity of {figure} on {comparison.data} ({count} tokens)"
    return f"{wording.percent(accuracy.top1)} on {comparison.data} ({count} images)"


def cells_of(comparison: Comparison, criterion: str, ratio: float) -> list[Cell]:
    """Those of every restorer and seed."""
    return [
        cell
        for restorer in comparison.restorers
        for cell in comparison.over_seeds(criterion, restorer, ratio)
    ]


def cost_rows(comparison: Comparison, criterion: str) -> list[list[str]]:
    """Rows of channels, parameters and MACs: their share that is left at each ratio.

    Restorers remove the same channels; they differ in biases that they add, of which the largest
    number counts.
    """
    before = comparison.cost
    rows = [["channels"], ["parameters"], ["MACs"]]
    for ratio in comparison.ratios:
        cells = cells_of(comparison, criterion, ratio)
        kept = sum(group.kept for group in cells[0].groups) if cells else 0
        total = sum(group.size for group in cells[0].groups) if cells else 0
        shares = (
            kept / total if total else 1.0,
            max((cell.cost.params for cell in cells), default=before.params) / before.params,
            max((cell.cost.macs for cell in cells), default=before.macs) / before.macs,
        )
        for row, share in zip(rows, shares, strict=True):
            row.append(f"{100 * share:.1f} %" if cells else "failed")
    return rows


def sweep_page(sweep: Sweep, *notes: str) -> str:
    """Pictures and tables of every network as one HTML page; methods can be left out, cells opened.

    Args:
        sweep: what was measured.
        notes: further lines under the title.
    """
    several = len(sweep.comparisons) > 1
    numbered = Numbered.of(sweep)
    summary, sections = [], []
    for one in sweep.comparisons:
        name = one.model if several else "The dense network"
        summary.append(
            f"{name} reaches {reached(one)} with {wording.count(one.cost.params)} parameters and "
            f"{wording.count(one.cost.macs)} multiply-accumulates (MACs)."
        )
        found = _sections(one, numbered)
        if several:
            found = [replace(each, heading=f"{one.model}: {each.heading}") for each in found]
        sections += found
    summary.append("Here it is pruned and restored without training.")
    if sweep.failures:
        rows = [(str(one.key), one.reason) for one in sweep.failures]
        sections.append(Section("Failed", tables=[Table(("cell", "why"), rows, numeric_from=2)]))
    title = ", ".join(one.model for one in sweep.comparisons)
    opened = {
        str(numbered.cell(one, cell)): _opened(cell)
        for one in sweep.comparisons
        for cell in one.cells
    }
    page = Page(f"{title}, pruned", [*summary, *notes], sections, [*numbered.methods], opened)
    return render(page)


def _opened(cell: Cell) -> dict[str, Any]:
    """What a cell shows of its layers."""
    seed = f", seed {cell.seed}" if cell.seed else ""
    rows = [
        (
            group.name,
            f"{group.kept}/{group.size}",
            wording.error(group.reconstruction_error),
            group.restored_by,
            "; ".join(group.notes),
        )
        for group in cell.groups
    ]
    return {"title": f"{method_of(cell)}, {100 * cell.ratio:g} %{seed}", "rows": rows}


def _sections(comparison: Comparison, numbered: Numbered) -> list[Section]:
    sections = [_tradeoffs(comparison, numbered)] if comparison.cells else []
    sections += [_accuracy_section(comparison, name) for name in comparison.criteria]
    if comparison.cells:
        sections += _layer_sections(comparison)
    if refusals := comparison.refusals():
        sections.append(refusal_section(refusals))
    return [*sections, _all_cells(comparison, numbered)]


def _tradeoffs(comparison: Comparison, numbered: Numbered) -> Section:
    """A picture for each cost that was measured."""
    dense = comparison.cost
    costs: dict[str, Cost] = {
        "MACs": lambda cell: cell.cost.macs / dense.macs if dense.macs else None,
        "parameters": lambda cell: cell.cost.params / dense.params if dense.params else None,
        "latency": lambda cell: cell.time_left,
    }
    pictures = []
    for what, cost in costs.items():
        lines = lines_of(comparison, numbered, cost)
        if lines:
            caption = "Rings: the Pareto front of all methods; no other is both cheaper and better."
            if len(comparison.seeds) > 1:
                caption += (
                    f" Lines are medians of {len(comparison.seeds)} seeds, bands their range."
                )
            pictures.append(Picture(tradeoff(comparison, lines, what), caption))
    figure = "Perplexity" if comparison.of_text else "Accuracy"
    return Section(f"{figure} over cost", pictures=pictures)


def refusal_section(refusals: tuple[Refusal, ...]) -> Section:
    """What stayed as it is, one row per reason."""
    reasons = dict.fromkeys(refusal.reason for refusal in refusals)
    rows = [
        (wording.compact(r.group for r in refusals if r.reason == reason), reason)
        for reason in reasons
    ]
    return Section("Not pruned", tables=[Table(("layers", "why"), rows, numeric_from=2)])


def _accuracy_section(comparison: Comparison, criterion: str) -> Section:
    accuracies = [
        [
            restorer,
            *(
                worded(comparison, comparison.median(criterion, restorer, ratio))
                for ratio in comparison.ratios
            ),
        ]
        for restorer in comparison.restorers
    ]
    header = [f"{100 * ratio:g} %" for ratio in comparison.ratios]
    return Section(
        f"Channels chosen by {criterion}",
        tables=[
            Table(["perplexity" if comparison.of_text else "top-1 (%)", *header], accuracies),
            Table(["left", *header], cost_rows(comparison, criterion)),
        ],
    )


def _layer_sections(comparison: Comparison) -> list[Section]:
    """A picture per criterion, or one for all where they take equal numbers from each layer."""
    bars = {criterion: _bars(comparison, criterion) for criterion in comparison.criteria}
    alike = all(found == bars[comparison.criteria[0]] for found in bars.values())
    if alike:
        return [_layer_section(comparison, "Layers", bars[comparison.criteria[0]])]
    return [
        _layer_section(comparison, f"Layers, channels chosen by {criterion}", found)
        for criterion, found in bars.items()
    ]


def _layer_section(comparison: Comparison, heading: str, bars: list[Bar]) -> Section:
    if not bars:
        return Section(heading, text=["No layer lost channels."])
    caption = (
        "Per layer the channels that stay, whichever restorer follows. "
        "The numbers count them in the order of the ratios."
    )
    labels = [f"stay at {100 * ratio:g} %" for ratio in comparison.ratios]
    return Section(heading, pictures=[Picture(layers(bars, labels), caption)])


def _bars(comparison: Comparison, criterion: str) -> list[Bar]:
    """The layers that lost channels at some ratio; at the others they keep all."""
    found = [cells_of(comparison, criterion, ratio) for ratio in comparison.ratios]
    cells = [cells[0] for cells in found if cells]
    fullest = sorted(cells, key=lambda cell: -len(cell.groups))  # has the network's order
    totals = {group.name: group.size for cell in fullest for group in cell.groups}
    kept = [{group.name: group.kept for group in cell.groups} for cell in cells]
    return [
        Bar(name, total, tuple(held.get(name, total) for held in kept))
        for name, total in totals.items()
    ]


def _all_cells(comparison: Comparison, numbered: Numbered) -> Section:
    columns = (
        *("criterion", "restorer", "ratio", "seed", "top-1", "top-5", "loss", "params", "MACs"),
        *("time", "latency"),
    )
    rows = [
        (
            cell.criterion,
            cell.restorer,
            f"{100 * cell.ratio:g} %",
            str(cell.seed) if len(comparison.seeds) > 1 else "",
            f"{cell.accuracy.top1:.2f}",
            "" if cell.accuracy.top5 is None else f"{cell.accuracy.top5:.2f}",
            f"{cell.accuracy.loss:.4f}",
            wording.count(cell.cost.params),
            wording.count(cell.cost.macs),
            f"{cell.seconds:.2f} s",
            "" if cell.timed is None else wording.milliseconds(cell.timed[1].median),
        )
        for cell in comparison.cells
    ]
    cells = [
        (numbered.cell(comparison, c), numbered.methods[method_of(c)]) for c in comparison.cells
    ]
    settings = ", ".join(f"{name} {value}" for name, value in comparison.settings.items())
    return Section(
        "All numbers",
        text=[
            f"Settings: {settings}. Time is that of pruning and restoring. A row opens its layers."
        ],
        tables=[Table(columns, rows, numeric_from=2, cells=cells)],
    )
