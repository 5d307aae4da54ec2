"""Which way of pruning ResNet-56 keeps the most images that PGD can't turn?

    python -m benchmarks.robust_resnet56 [METHOD ...] [SEED ...]

CIFAR-10; ``lbyl`` and ``regression``, plain and with ``neighbourhoods``, by the smallest l1 norm,
of the inner channels of every block; no data is read. Accuracy is of test images 5,000 to 9,999,
robust are those of the first thousand of these that PGD with ten steps can't turn, eps in pixels.
Rows that aren't asked for stay as they were measured.
"""

from __future__ import annotations

import sys
from functools import cache
from itertools import product

import torch
from torch import nn

import bequest
from benchmarks.record import record, renewed
from benchmarks.subjects import opened, subject
from bequest.calibration.samples import Samples
from bequest.restorers import Regression
from bequest.restorers.base import Restorer

EPS = 0.5 / 255
RATIOS = (0.3, 0.5)
METHODS: dict[str, str | Restorer] = {
    "regression": Regression(),
    "neighbourhoods": Regression(neighbourhood=0.015),
    "lbyl": "lbyl",
}
"""Radii are in standard deviations of the inputs: 1/255 of CIFAR-10 is 0.016."""
COLUMNS = ("method", "ratio", "seed", "top-1", f"robust, eps {255 * EPS:g}/255")


def main() -> None:
    """Prints and records the table."""
    words = sys.argv[1:]
    seeds = [int(word) for word in words if word.isdigit()] or [0, 1, 2]
    methods = [word for word in METHODS if word in words] or list(METHODS)
    data = "cifar10/test.npz"
    model, entry, images = subject("resnet56", "resnet56_cifar10.safetensors", data, offset=5000)
    attacked = opened(entry, data, offset=5000, limit=1000)
    example = torch.zeros(1, *entry.input_shape)
    mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
    ends = (0 - mean) / std, (1 - mean) / std

    def keep(method: str, ratio: float, seed: int, network: nn.Module) -> None:
        """Measures a network, in percent, and writes its row beside the others."""
        found = bequest.robustness(network, attacked, "pgd", EPS / std, input_range=ends)
        top1 = bequest.evaluate(network, images).top1
        row = [method, ratio, seed, round(top1, 2), round(found.robust_accuracy, 1)]
        record(
            "robust_resnet56",
            renewed("robust_resnet56", [row], key=3),
            COLUMNS,
            test="CIFAR-10, top-1 of images 5,000 to 9,999, robust of 5,000 to 5,999",
            attack="PGD, 10 steps, random start",
            pruned="inner channels of every block by l1, round_to=1",
        )

    @cache
    def made(seed: int) -> Samples:
        """The images of all methods that look at any."""
        return Regression().samples(model, example, None, seed)

    keep("dense", 0.0, 0, model)
    for seed, method, ratio in product(seeds, methods, RATIOS):
        pruned = bequest.prune(
            model,
            example,
            ratio,
            criterion="l1",
            restorer=METHODS[method],
            data=None if method == "lbyl" else made(seed),
            seed=seed,
            round_to=1,
        )
        keep(method, ratio, seed, pruned.model)


if __name__ == "__main__":
    main()
