"""Every criterion with every restorer at every ratio, measured on the same images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from bequest.cli.measures import Measures
from bequest.cli.steps import Settings
from bequest.measure import Accuracy, cost
from bequest.report import Cell, Comparison


def compare_all(
    model: nn.Module,
    example: torch.Tensor,
    measures: Measures,
    *,
    name: str,
    data: str,
    ratios: Sequence[float],
    criteria: Sequence[str],
    restorers: Sequence[str],
    settings: Settings,
    value_range: tuple[float, float] | None,
    looked_at: Iterable[Any] | None = None,
) -> Comparison:
    """Prunes and measures once for every cell; the dense network is measured once.

    Synthetic images are made once: those that every cell would make for itself.

    Args:
        model: the dense network.
        example: one input.
        measures: what accuracy is measured on, images or a text.
        name: the model in words.
        data: the images or the text in words.
        ratios: ascending.
        criteria: registered names.
        restorers: registered names.
        settings: what all cells share.
        value_range: lowest and highest value of an input, where it is known.
        looked_at: what is looked at in the place of made-up inputs, if anything.
    """
    calls = {
        (criterion, restorer): settings.check(ratios[0], criterion, restorer)
        for criterion, restorer in product(criteria, restorers)
    }
    sources = {pair: call.restorer.inputs() for pair, call in calls.items() if call.reads_inputs}
    made = {
        source: settings.seen(model, example, source.within(value_range), looked_at)
        for source in dict.fromkeys(sources.values())
    }
    seen = {pair: made[source] for pair, source in sources.items()}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        runs = 1 + len(criteria) * len(restorers) * len(ratios)
        task = bar.add_task("dense", total=runs)

        def accuracy_of(network: nn.Module) -> Accuracy:
            found = measures.accuracy(network)
            bar.advance(task)
            return found

        accuracy = accuracy_of(model)
        cells = []
        for criterion, restorer, ratio in product(criteria, restorers, ratios):
            bar.update(task, description=f"{criterion}, {restorer}, {100 * ratio:g} %")
            pruned, seconds = settings.prune(
                model,
                example,
                ratio,
                criterion,
                restorer,
                value_range=value_range,
                data=seen.get((criterion, restorer)),
            )
            cell = Cell(
                criterion=criterion,
                restorer=restorer,
                ratio=ratio,
                accuracy=accuracy_of(pruned.model),
                cost=pruned.report.after,
                groups=pruned.report.groups,
                refused=pruned.report.refused,
                seconds=seconds,
            )
            cells.append(cell)
    shared = dataclasses.asdict(settings)
    dense = cost(model, example)
    of_text = measures.text is not None
    return Comparison(name, data, shared, accuracy, dense, tuple(cells), of_text)
