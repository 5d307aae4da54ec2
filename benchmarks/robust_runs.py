"""The frame that the tables of Meng et al. (arXiv 2204.00783) share.

Hidden units of two kinds, five ways of pruning in steps of 1/64, ratios met on the way, and cells
that are median and range over runs.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

import bequest
from bequest.robust.pruning import ALPHA

UNITS = {"ReLU": (nn.ReLU, 0.75), "sigmoid": (nn.Sigmoid, 0.05)}
"""Hidden units and the alpha published for them."""
SEEDS = range(5)
RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
METHODS = {
    "baseline": ("baseline", "sum", 0.5),
    "greedy": ("greedy", "sum", 0.75),
    "stochastic": ("stochastic", "sum", 0.75),
    "stochastic + lbyl": ("stochastic", "lbyl", 0.75),
    "stochastic + regression": ("stochastic", "regression", 0.75),
}
"""Name → strategy, restorer and the largest ratio."""
FACTS = {"alpha": "0.75 (ReLU), 0.05 (sigmoid), as published", "step": "1/64"}

Measured = tuple[float, ...]
"""Accuracy in percent, then numbers of robust instances."""
Run = dict[float, Measured]
"""Ratio → what was measured there."""


def pruned_on_the_way(
    model: nn.Module,
    shape: tuple[int, ...],
    method: str,
    alpha: float,
    seed: int,
    measure: Callable[[nn.Module], Measured],
    layers: Sequence[str] = ("*",),
) -> Run:
    """Prunes one network by one method and measures it at :data:`RATIOS`.

    Args:
        model: the trained network.
        shape: of one of its inputs, whose pixels are in 0..1.
        method: a key of :data:`METHODS`.
        alpha: weight of a change's size against its evenness.
        seed: of the pruning.
        measure: measures a network.
        layers: which of them lose units.
    """
    strategy, restorer, most = METHODS[method]
    found: Run = {}

    def look(step: bequest.robust.Step, pruned: nn.Module) -> None:
        if step.removed in RATIOS:
            found[step.removed] = measure(pruned)

    bequest.robust.prune(
        model,
        torch.zeros(1, *shape),
        (0, 1),
        dict.fromkeys(layers, most),
        1 / 64,
        strategy,
        ALPHA if strategy == "baseline" else alpha,  # it scores no changes and takes none
        restorer,
        seed,
        look,
    )
    return found


def rows_of(units: str, method: str, runs: Iterable[Run]) -> Iterator[list[object]]:
    """A row per ratio, over all runs; printed as soon as it is there."""
    gathered = defaultdict(list)
    for run in runs:
        for ratio, values in run.items():
            gathered[ratio].append(values)
    for ratio, all_values in gathered.items():
        row = [units, method, ratio, *map(_spread, zip(*all_values, strict=True))]
        print(*row, flush=True)
        yield row


def _spread(values: Sequence[float]) -> str:
    """Median and range."""
    digits = 1 if max(values) <= 100 else 0
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
