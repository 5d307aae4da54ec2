"""How far can an MLP be pruned in small steps, in accuracy and in robust instances?

Re-makes the MNIST tables of Meng et al. (arXiv 2204.00783): 784-128-128-64-10 of ReLU and of
sigmoid units, five networks of each, every row over all five; accuracy on the 2,000 held-out
images, robust instances under FGSM among the first 1,000 of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.robust_runs import (
    FACTS,
    METHODS,
    SEEDS,
    UNITS,
    Measured,
    pruned_on_the_way,
    rows_of,
)
from benchmarks.robust_subjects import mlp, mnist, trained

EPS = (0.01, 0.05)


def measured(model: nn.Module) -> Measured:
    """Accuracy in percent, and robust instances for each eps."""
    _, (x, y) = mnist()
    first = [(x[:1000], y[:1000])]
    robust = (float(bequest.robustness(model, first, "fgsm", eps).robust) for eps in EPS)
    return bequest.evaluate(model, [(x, y)]).top1, *robust


def main(names: Sequence[str]) -> None:
    """Prints and records one table; ``names``: which methods (all)."""
    rows: list[list[object]] = []
    for units, (activation, alpha) in UNITS.items():
        make = partial(mlp, activation)
        networks = [
            trained(f"mlp-{units.lower()}", make, mnist, seed=seed, epochs=20) for seed in SEEDS
        ]
        rows += rows_of(units, "dense", ({0.0: measured(model)} for model in networks))
        for method in names or METHODS:
            runs = (
                pruned_on_the_way(model, (1, 28, 28), method, alpha, seed, measured)
                for seed, model in zip(SEEDS, networks, strict=True)
            )
            rows += rows_of(units, method, runs)
    record(
        "robust_mnist",
        rows,
        ["units", "method", "ratio", "top-1", *(f"robust, eps {eps}" for eps in EPS)],
        cells="median (range) over five networks, trained and pruned with the seeds 0 to 4",
        data="MNIST: the 10,000 test images, 8,000 to train on, every fifth to report on",
        robust="instances under FGSM among the first 1,000 of the reported images",
        developed_on="the order of candidates was chosen on 4,000 of the training images",
        **FACTS,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
