"""How far can the hidden units of a CIFAR-10 CNN be pruned in small steps?

Re-makes the CIFAR-10 tables of Meng et al. (arXiv 2204.00783): the hidden linear layers (128 and 64
units, ReLU or sigmoid) of a CNN of the published topology, pruned with five seeds; top-1 and robust
instances under FGSM, also by the top three, among the first 1,000 test images.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.robust_mnist import METHODS, RATIOS, spread
from benchmarks.robust_subjects import Split, cifar, cnn, trained

LAYERS = ("9", "11")  # the hidden linear layers
UNITS = {"ReLU": (nn.ReLU, 0.75), "sigmoid": (nn.Sigmoid, 0.05)}
"""Hidden units and the alpha published for them."""
SEEDS = range(5)
LOOKS = [(eps, top) for top in (1, 3) for eps in (0.01, 0.05)]


def measured(model: nn.Module, images: Split) -> tuple[float, ...]:
    """Accuracy in percent, and robust instances for each eps and number of best classes."""
    first = [(images[0][:1000], images[1][:1000])]
    robust = (
        float(bequest.robustness(model, first, "fgsm", eps, top=top).robust) for eps, top in LOOKS
    )
    return bequest.evaluate(model, first).top1, *robust


def main(names: Sequence[str]) -> None:
    """Prints and records the table; ``names``: of which hidden units (all)."""
    rows: list[list[object]] = []
    _, images = cifar()
    for name in names or UNITS:
        activation, alpha = UNITS[name]

        def make(activation: type[nn.Module] = activation) -> nn.Module:
            return cnn(activation)

        model = trained(f"cnn-{name.lower()}", make, cifar, seed=0, epochs=12)
        rows.append([name, "dense", 0.0, *(spread([one]) for one in measured(model, images))])
        for method, (strategy, restorer, most) in METHODS.items():
            gathered = defaultdict(list)

            def look(step: bequest.robust.Step, pruned: nn.Module) -> None:
                if step.removed in RATIOS:
                    gathered[step.removed].append(measured(pruned, images))  # noqa: B023

            for seed in SEEDS[: 1 if method == "baseline" else None]:
                bequest.robust.prune(
                    model,
                    torch.zeros(1, 3, 32, 32),
                    (0, 1),
                    dict.fromkeys(LAYERS, most),
                    1 / 64,
                    strategy,
                    alpha,
                    restorer,
                    seed,
                    look,
                )
            for ratio, values in gathered.items():
                rows.append([name, method, ratio, *map(spread, zip(*values, strict=True))])
                print(*rows[-1], flush=True)
    columns = [f"robust, eps {eps}{'' if top == 1 else ', top 3'}" for eps, top in LOOKS]
    record(
        "robust_cifar",
        rows,
        ["units", "method", "ratio", "top-1", *columns],
        cells="median (range) over pruning with the seeds 0 to 4; the baseline has no randomness",
        data="CIFAR-10: trained on 25,000 images, reported on the first 1,000 test images",
        pruned="the hidden linear layers alone",
        alpha="0.75 (ReLU), 0.05 (sigmoid), as published",
        step="1/64",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
