"""Which way of pruning ResNet-56 keeps the most images that PGD can't turn?

CIFAR-10, PGD with ten steps, eps in pixels; ``lbyl`` and ``regression``, plain and with
neighbourhoods, by the smallest l1 norm, of the inner channels of every block. No data is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.subjects import opened, subject
from bequest.restorers import Regression

EPS = 0.5 / 255
RATIOS = (0.3, 0.5)
LBYL, FEW = "lbyl", 300
"""What is there to compare with, and how many images of it are looked at."""

NEIGHBOURHOOD = 0.015
"""In standard deviations of the inputs: 1/255 of CIFAR-10 is 0.016."""


def pruned(model: nn.Module, example: torch.Tensor) -> Iterator[tuple[str, float, nn.Module]]:
    """Method, ratio and network, one after another."""
    samples = Regression().samples(model, example, None, 0)
    near = Regression(neighbourhood=NEIGHBOURHOOD)
    for method, restorer, data in (
        ("regression", Regression(), samples),
        ("regression, neighbourhoods", near, samples),
        (LBYL, "lbyl", None),
    ):
        for ratio in RATIOS:
            found = bequest.prune(
                model, example, ratio, criterion="l1", restorer=restorer, data=data, round_to=1
            )
            yield method, ratio, found.model


def main(images: int = 1000) -> None:
    """Prints and records the table."""
    data = "cifar10/test.npz"
    model, entry, loader = subject(
        "resnet56", "resnet56_cifar10.safetensors", data, offset=5000, limit=images
    )
    few = opened(entry, data, offset=5000, limit=min(FEW, images))
    mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
    ends = (0 - mean) / std, (1 - mean) / std
    rows: list[list[object]] = []

    def look(method: str, ratio: float, network: nn.Module) -> None:
        seen = few if method == LBYL else loader
        found = bequest.robustness(network, seen, "pgd", EPS / std, input_range=ends)
        shares = round(found.accuracy, 1), round(found.robust_accuracy, 1)
        rows.append([method, ratio, found.count, *shares])
        print(*rows[-1], flush=True)

    look("dense", 0.0, model)
    for method, ratio, network in pruned(model, torch.zeros(1, *entry.input_shape)):
        look(method, ratio, network)
    record(
        "robust_resnet56",
        rows,
        ["method", "ratio", "images", "top-1", f"robust, eps {255 * EPS:g}/255"],
        seed=0,
        test="CIFAR-10, from image 5,000 on",
        attack="PGD, 10 steps, random start",
        pruned="inner channels of every block",
        neighbourhood=f"{NEIGHBOURHOOD} standard deviations of the inputs",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
