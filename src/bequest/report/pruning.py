"""One pruned network: before, after, and what happened in every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bequest.artifact.plan import Form
from bequest.measure import Accuracy, Cost, Latency, Perplexity
from bequest.pruning import Report
from bequest.report import wording
from bequest.report.comparison import refusal_section
from bequest.report.figures import Bar, layers
from bequest.report.page import Page, Picture, Section, Table, render
from bequest.sweeping.comparison import group_json

AS_PROGRAM = (
    "Sizes in the model's code don't let its class hold the new widths, so the pruned network is a "
    "program, its traced operators: it needs no class, and takes inputs of the traced size."
)


@dataclass(frozen=True)
class Measured:
    """What was measured of one network: accuracy over images and perplexity of a text, if any."""

    cost: Cost
    latency: Latency
    accuracy: Accuracy | None
    perplexity: Perplexity | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PruningResult:
    """One pruning from end to end.

    Attributes:
        model: what was pruned, in words.
        recipe: the call, as the plan holds it.
        report: per group its kept and total channels and reconstruction error; refusals.
        before: the dense network.
        after: the pruned network.
        seconds: time to prune and restore.
        form: "program" where sizes in the model's code don't let its class hold the pruned network.
    """

    model: str
    recipe: Mapping[str, Any]
    report: Report
    before: Measured
    after: Measured
    seconds: float
    form: Form = "module"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "recipe": dict(self.recipe),
            "groups": [group_json(group) for group in self.report.groups],
            "refused": [dataclasses.asdict(refusal) for refusal in self.report.refused],
            "notes": list(self.report.notes),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "seconds": self.seconds,
            "form": self.form,
        }


def before_and_after(result: PruningResult) -> list[tuple[str, str, str, str]]:
    """Rows (what, before, after, change)."""
    groups = result.report.groups
    total, kept = sum(group.size for group in groups), sum(group.kept for group in groups)
    before, after = result.before, result.after
    rows = [
        ("channels of pruned layers", f"{total:,}", f"{kept:,}", wording.change(total, kept)),
        _row("parameters", before.cost.params, after.cost.params, wording.count),
        _row("MACs, one input", before.cost.macs, after.cost.macs, wording.count),
        _row("tensors on disk", before.cost.bytes, after.cost.bytes, wording.size),
        _row(
            wording.place(before.latency),
            before.latency.median,
            after.latency.median,
            wording.milliseconds,
        ),
    ]
    if before.accuracy is not None and after.accuracy is not None:
        rows += _accuracy_rows(before.accuracy, after.accuracy)
    if before.perplexity is not None and after.perplexity is not None:
        rows += _perplexity_rows(before.perplexity, after.perplexity)
    if result.form == "program":
        rows.append(("runs as", "its class", "a program", ""))
    return rows


def pruning_page(result: PruningResult) -> str:
    """Numbers before and after, bars and tables as one HTML page."""
    recipe = result.recipe
    seconds = f"{result.seconds:.1f} s"
    summary = [
        f"Channels chosen by {recipe['criterion']['name']}, restored by "
        f"{recipe['restorer']['name']}, {_asked(recipe)}, groups "
        f"{recipe['groups']}, widths in multiples of {recipe['round_to']}. Pruned and restored in "
        f"{seconds}, without training."
    ]
    if result.form == "program":
        summary.append(AS_PROGRAM)
    summary += wording.merged(result.report.notes)
    rows = before_and_after(result)
    sections = [
        Section("Before and after", tables=[Table(("", "before", "after", "change"), rows)])
    ]
    sections.append(_layer_section(result))
    if result.report.refused:
        sections.append(refusal_section(result.report.refused))
    return render(Page(f"{result.model}, pruned", summary, sections))


def _row(
    what: str, before: float, after: float, worded: Callable[[Any], str]
) -> tuple[str, str, str, str]:
    return what, worded(before), worded(after), wording.change(before, after)


def _accuracy_rows(before: Accuracy, after: Accuracy) -> list[tuple[str, str, str, str]]:
    rows = [
        (
            f"top-1, {before.count:,} images",
            wording.percent(before.top1),
            wording.percent(after.top1),
            f"{after.top1 - before.top1:+.2f}",
        )
    ]
    if before.top5 is not None and after.top5 is not None:
        change = f"{after.top5 - before.top5:+.2f}"
        rows.append(("top-5", wording.percent(before.top5), wording.percent(after.top5), change))
    rows.append(("loss", f"{before.loss:.4f}", f"{after.loss:.4f}", ""))
    return rows


def _perplexity_rows(before: Perplexity, after: Perplexity) -> list[tuple[str, str, str, str]]:
    what = f"perplexity, {before.tokens:,} tokens"
    shares = wording.percent(before.top1), wording.percent(after.top1)
    speeds = before.tokens_per_second, after.tokens_per_second
    return [
        _row(what, before.perplexity, after.perplexity, wording.perplexity),
        ("next token right", *shares, f"{after.top1 - before.top1:+.2f}"),
        _row("tokens per second", *speeds, wording.count),
    ]


def _layer_section(result: PruningResult) -> Section:
    groups = result.report.groups
    if not groups:
        return Section("Layers", text=["No layer lost channels."])
    bars = [Bar(group.name, group.size, (group.kept,)) for group in groups]
    rows = [
        (
            group.name,
            f"{group.kept}/{group.size}",
            group.restored_by,
            wording.error(group.reconstruction_error),
            wording.error(group.unrestored_error),
            wording.error(group.predicted_error),
            "-" if group.condition is None else f"{group.condition:.0e}",
            "; ".join(group.notes),
        )
        for group in groups
    ]
    columns = (
        *("layer", "stay", "restored by", "error", "unrestored", "predicted", "condition"),
        "notes",
    )
    caption = "Per layer the channels that stay."
    text = (
        "Error: the mean distance of a removed filter from what was handed on for it, relative to "
        "the filter; after a regression, how far the outputs of the layer behind are from the "
        "dense network's, relative to their spread. 0 is exact, 1 is as far as if nothing were "
        "handed on. Unrestored: the same with the weights as they were; predicted: from the dense "
        "network alone."
    )
    return Section(
        "Layers",
        text=[text],
        pictures=[Picture(layers(bars, ("stay",)), caption)],
        tables=[Table(columns, rows, numeric_from=len(columns))],
    )


def _asked(recipe: Mapping[str, Any]) -> str:
    ratio, target = recipe["ratio"], recipe.get("target")
    if target is not None:
        return f"target {target}"
    if isinstance(ratio, Mapping):
        return "ratio " + ", ".join(f"{pattern}={value:g}" for pattern, value in ratio.items())
    return f"ratio {ratio:g}"
