"""Restorers side by side: what was measured, and the page that shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bequest.artifact.plan import GroupPlan, Refusal
from bequest.measure import Accuracy, Cost
from bequest.report import wording
from bequest.report.figures import Bar, curves, layers
from bequest.report.page import Page, Picture, Section, Table, render


@dataclass(frozen=True)
class Cell:
    """One pruning: who chose, who restored, how much left, and what it gave.

    Attributes:
        criterion: name of the criterion.
        restorer: name of the restorer.
        ratio: share of channels that each group was asked to lose.
        accuracy: of the pruned network.
        cost: of the pruned network, for one input.
        groups: per group its kept and total channels and reconstruction error.
        refused: what stayed as it is although the call asked for it.
        seconds: time to prune and restore.
    """

    criterion: str
    restorer: str
    ratio: float
    accuracy: Accuracy
    cost: Cost
    groups: tuple[GroupPlan, ...]
    refused: tuple[Refusal, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; of a group its numbers, not the indices of its channels."""
        return {
            "criterion": self.criterion,
            "restorer": self.restorer,
            "ratio": self.ratio,
            "accuracy": dataclasses.asdict(self.accuracy),
            "cost": dataclasses.asdict(self.cost),
            "groups": [group_json(group) for group in self.groups],
            "refused": [dataclasses.asdict(refusal) for refusal in self.refused],
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Comparison:
    """A dense network and its pruned forms.

    Attributes:
        model: what was pruned, in words.
        data: what it was measured on, in words.
        settings: what all cells share: groups, scope, round_to, seed.
        accuracy: of the dense network.
        cost: of the dense network, for one input.
        cells: one per criterion, restorer and ratio, in this order.
        of_text: whether accuracies are those of next tokens of a text.
    """

    model: str
    data: str
    settings: Mapping[str, Any]
    accuracy: Accuracy
    cost: Cost
    cells: tuple[Cell, ...]
    of_text: bool = False

    def figure(self, accuracy: Accuracy) -> float:
        """What networks are compared by: top-1 in percent, of a text the perplexity."""
        return wording.exponential(accuracy.loss) if self.of_text else accuracy.top1

    @property
    def figures(self) -> str:
        """What :meth:`figure` is, in words."""
        return "Perplexity" if self.of_text else "Top-1 in percent"

    def worded(self, accuracy: Accuracy) -> str:
        """:meth:`figure` as people read it."""
        value = self.figure(accuracy)
        return wording.perplexity(value) if self.of_text else f"{value:.2f}"

    @property
    def reached(self) -> str:
        """What the dense network reaches, and on how much."""
        count = f"{self.accuracy.count:,}"
        if self.of_text:
            return f"a perplexity of {self.worded(self.accuracy)} on {self.data} ({count} tokens)"
        return f"{wording.percent(self.accuracy.top1)} on {self.data} ({count} images)"

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names, in the order of the cells."""
        return tuple(dict.fromkeys(cell.criterion for cell in self.cells))

    @property
    def restorers(self) -> tuple[str, ...]:
        """Names, in the order of the cells."""
        return tuple(dict.fromkeys(cell.restorer for cell in self.cells))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ascending."""
        return tuple(sorted({cell.ratio for cell in self.cells}))

    def cell(self, criterion: str, restorer: str, ratio: float) -> Cell:
        """The cell of these three."""
        key = (criterion, restorer, ratio)
        return next(c for c in self.cells if (c.criterion, c.restorer, c.ratio) == key)

    def refusals(self) -> tuple[Refusal, ...]:
        """What stayed as it is, over all cells, each once."""
        return tuple(dict.fromkeys(refusal for cell in self.cells for refusal in cell.refused))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "data": self.data,
            "of_text": self.of_text,
            "settings": dict(self.settings),
            "dense": {
                "accuracy": dataclasses.asdict(self.accuracy),
                "cost": dataclasses.asdict(self.cost),
            },
            "cells": [cell.to_json() for cell in self.cells],
        }


def group_json(group: GroupPlan) -> dict[str, Any]:
    """A group's numbers in plain values, without the indices of its channels."""
    return {
        "name": group.name,
        "kind": group.kind,
        "producers": list(group.producers),
        "consumers": list(group.consumers),
        "kept": group.kept,
        "total": group.size,
        "restored_by": group.restored_by,
        "reconstruction_error": group.reconstruction_error,
        "notes": list(group.notes),
    }


def cost_rows(comparison: Comparison, criterion: str) -> list[list[str]]:
    """Rows of channels, parameters and MACs: their share that is left at each ratio.

    Restorers remove the same channels; they differ in biases that they add, of which the largest
    number counts.
    """
    before = comparison.cost
    rows = [["channels"], ["parameters"], ["MACs"]]
    for ratio in comparison.ratios:
        cells = [comparison.cell(criterion, name, ratio) for name in comparison.restorers]
        kept = sum(group.kept for group in cells[0].groups)
        total = sum(group.size for group in cells[0].groups)
        shares = (
            kept / total if total else 1.0,
            max(cell.cost.params for cell in cells) / before.params,
            max(cell.cost.macs for cell in cells) / before.macs,
        )
        for row, share in zip(rows, shares, strict=True):
            row.append(f"{100 * share:.1f} %")
    return rows


def comparison_page(comparison: Comparison, *notes: str) -> str:
    """Curves, bars and tables as one HTML page.

    Args:
        comparison: what was measured.
        notes: further lines under the title.
    """
    summary = [
        f"The dense network reaches {comparison.reached} "
        f"with {wording.count(comparison.cost.params)} parameters and "
        f"{wording.count(comparison.cost.macs)} multiply-accumulates (MACs). Here it is pruned and "
        "restored without data and without training.",
        *notes,
    ]
    sections = [_accuracy_section(comparison, name) for name in comparison.criteria]
    sections += _layer_sections(comparison)
    if refusals := comparison.refusals():
        sections.append(refusal_section(refusals))
    sections.append(_all_cells(comparison))
    return render(Page(f"{comparison.model}, pruned", summary, sections))


def refusal_section(refusals: tuple[Refusal, ...]) -> Section:
    """What stayed as it is, one row per reason."""
    reasons = dict.fromkeys(refusal.reason for refusal in refusals)
    rows = [
        (wording.compact(r.group for r in refusals if r.reason == reason), reason)
        for reason in reasons
    ]
    return Section("Not pruned", tables=[Table(("layers", "why"), rows, numeric_from=2)])


def _accuracy_section(comparison: Comparison, criterion: str) -> Section:
    lines = {
        restorer: [
            (ratio, comparison.cell(criterion, restorer, ratio).accuracy.top1)
            for ratio in comparison.ratios
        ]
        for restorer in comparison.restorers
    }
    accuracies = [
        [
            restorer,
            *(
                comparison.worded(comparison.cell(criterion, restorer, ratio).accuracy)
                for ratio in comparison.ratios
            ),
        ]
        for restorer in comparison.restorers
    ]
    header = [f"{100 * ratio:g} %" for ratio in comparison.ratios]
    caption = f"Every curve begins at the dense network, {comparison.accuracy.top1:.2f} %."
    if comparison.of_text:
        caption = f"How often the next token is foretold. {caption}"
    return Section(
        f"Accuracy, channels chosen by {criterion}",
        pictures=[Picture(curves(lines, comparison.accuracy.top1), caption)],
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
    cells = [
        comparison.cell(criterion, comparison.restorers[0], ratio) for ratio in comparison.ratios
    ]
    fullest = sorted(cells, key=lambda cell: -len(cell.groups))  # has the network's order
    totals = {group.name: group.size for cell in fullest for group in cell.groups}
    kept = [{group.name: group.kept for group in cell.groups} for cell in cells]
    return [
        Bar(name, total, tuple(held.get(name, total) for held in kept))
        for name, total in totals.items()
    ]


def _all_cells(comparison: Comparison) -> Section:
    columns = ("criterion", "restorer", "ratio", "top-1", "top-5", "loss", "params", "MACs", "time")
    rows = [
        (
            cell.criterion,
            cell.restorer,
            f"{100 * cell.ratio:g} %",
            f"{cell.accuracy.top1:.2f}",
            "" if cell.accuracy.top5 is None else f"{cell.accuracy.top5:.2f}",
            f"{cell.accuracy.loss:.4f}",
            wording.count(cell.cost.params),
            wording.count(cell.cost.macs),
            f"{cell.seconds:.2f} s",
        )
        for cell in comparison.cells
    ]
    settings = ", ".join(f"{name} {value}" for name, value in comparison.settings.items())
    return Section(
        "All numbers",
        text=[f"Settings: {settings}. Time is that of pruning and restoring."],
        tables=[Table(columns, rows, numeric_from=2)],
    )
