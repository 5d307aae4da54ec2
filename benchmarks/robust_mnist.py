"""How far can an MLP be pruned in small steps, in accuracy and in robust instances?

Re-makes the MNIST tables of Meng et al. (arXiv 2204.00783): 784-128-128-64-10 of ReLU and of
sigmoid units, five networks of each, every row over all five; accuracy on the 2,000 held-out
images, robust instances under FGSM among the first 1,000 of them.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.robust_subjects import mlp, mnist, trained

SEEDS = range(5)
RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
EPS = (0.01, 0.05)
METHODS = {
    "baseline": ("baseline", "sum", 0.5),
    "greedy": ("greedy", "sum", 0.75),
    "stochastic": ("stochastic", "sum", 0.75),
    "stochastic + lbyl": ("stochastic", "lbyl", 0.75),
    "stochastic + regression": ("stochastic", "regression", 0.75),
}
Found = dict[float, tuple[float, ...]]
"""Ratio → accuracy in percent, and robust instances for each eps."""


def measured(model: nn.Module) -> tuple[float, ...]:
    """Accuracy and robust instances."""
    _, (x, y) = mnist()
    first = [(x[:1000], y[:1000])]
    robust = (float(bequest.robustness(model, first, "fgsm", eps).robust) for eps in EPS)
    return bequest.evaluate(model, [(x, y)]).top1, *robust


def run(model: nn.Module, method: str, alpha: float, seed: int) -> Found:
    """Prunes one network by one method and measures it on the way."""
    strategy, restorer, most = METHODS[method]
    found: Found = {}

    def look(step: bequest.robust.Step, pruned: nn.Module) -> None:
        if step.removed in RATIOS:
            found[step.removed] = measured(pruned)

    bequest.robust.prune(
        model,
        torch.zeros(1, 1, 28, 28),
        (0, 1),
        most,
        1 / 64,
        strategy,
        alpha,
        restorer,
        seed,
        look,
    )
    return found


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    digits = 1 if max(values) <= 100 else 0
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main(names: Sequence[str]) -> None:
    """Prints and records one table; ``names``: which methods (all)."""
    rows: list[list[object]] = []
    for name, activation, alpha in (("ReLU", nn.ReLU, 0.75), ("sigmoid", nn.Sigmoid, 0.05)):

        def make(activation: type[nn.Module] = activation) -> nn.Module:
            return mlp(activation)

        networks = [
            trained(f"mlp-{name.lower()}", make, mnist, seed=seed, epochs=20) for seed in SEEDS
        ]
        dense = zip(*(measured(model) for model in networks), strict=True)
        rows.append([name, "dense", 0.0, *map(spread, dense)])
        for method in names or METHODS:
            gathered = defaultdict(list)
            for seed, model in zip(SEEDS, networks, strict=True):
                for ratio, values in run(model, method, alpha, seed).items():
                    gathered[ratio].append(values)
            for ratio, all_values in gathered.items():
                columns = map(spread, zip(*all_values, strict=True))
                rows.append([name, method, ratio, *columns])
                print(*rows[-1], flush=True)
    record(
        "robust_mnist",
        rows,
        ["units", "method", "ratio", "top-1", *(f"robust, eps {eps}" for eps in EPS)],
        cells="median (range) over five networks, trained and pruned with the seeds 0 to 4",
        data="MNIST: the 10,000 test images, 8,000 to train on, every fifth to report on",
        robust="instances under FGSM among the first 1,000 of the reported images",
        alpha="0.75 (ReLU), 0.05 (sigmoid), as published",
        step="1/64",
        developed_on="the order of candidates was chosen on 4,000 of the training images",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
