"""How far can the hidden units of a CIFAR-10 CNN be pruned in small steps?

Re-makes the CIFAR-10 tables of Meng et al. (arXiv 2204.00783): the hidden linear layers (128 and 64
units, ReLU or sigmoid) of a CNN of the published topology, pruned with five seeds; top-1 and robust
instances under FGSM, also by the top three, among the first 1,000 test images.
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
from benchmarks.robust_subjects import Split, cifar, cnn, trained

LAYERS = ("9", "11")  # the hidden linear layers
LOOKS = [(eps, top) for top in (1, 3) for eps in (0.01, 0.05)]


def measured(images: Split, model: nn.Module) -> Measured:
    """Accuracy in percent, and robust instances for each eps and number of best classes."""
    first = [(images[0][:1000], images[1][:1000])]
    robust = (
        float(bequest.robustness(model, first, "fgsm", eps, top=top).robust) for eps, top in LOOKS
    )
    return bequest.evaluate(model, first).top1, *robust


def main(names: Sequence[str]) -> None:
    """Prints and records the table; ``names``: of which hidden units (all)."""
    rows: list[list[object]] = []
    measure = partial(measured, cifar()[1])
    for units in names or UNITS:
        activation, alpha = UNITS[units]
        make = partial(cnn, activation)
        model = trained(f"cnn-{units.lower()}", make, cifar, seed=0, epochs=12)
        rows += rows_of(units, "dense", [{0.0: measure(model)}])
        for method in METHODS:
            runs = (
                pruned_on_the_way(model, (3, 32, 32), method, alpha, seed, measure, LAYERS)
                for seed in SEEDS[: 1 if method == "baseline" else None]
            )
            rows += rows_of(units, method, runs)
    columns = [f"robust, eps {eps}{'' if top == 1 else ', top 3'}" for eps, top in LOOKS]
    record(
        "robust_cifar",
        rows,
        ["units", "method", "ratio", "top-1", *columns],
        cells="median (range) over pruning with the seeds 0 to 4; the baseline has no randomness",
        data="CIFAR-10: trained on 25,000 images, reported on the first 1,000 test images",
        pruned="the hidden linear layers alone",
        **FACTS,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
