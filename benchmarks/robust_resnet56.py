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
from benchmarks.subjects import subject
from bequest.restorers import Regression

EPS = (0.5 / 255, 1 / 255)
FEW = 300
"""Images of the larger eps."""

RATIOS = (0.3, 0.5)
NEIGHBOURHOOD = 0.015
"""In standard deviations of the inputs: 1/255 of CIFAR-10 is 0.016."""


def pruned(model: nn.Module, example: torch.Tensor) -> Iterator[tuple[str, float, nn.Module]]:
    """Method, ratio and network, one after another."""
    samples = Regression().samples(model, example, None, 0)
    for ratio in RATIOS:
        for method, restorer, data in (
            ("lbyl", "lbyl", None),
            ("regression", Regression(), samples),
            ("regression, neighbourhoods", Regression(neighbourhood=NEIGHBOURHOOD), samples),
        ):
            found = bequest.prune(
                model, example, ratio, criterion="l1", restorer=restorer, data=data, round_to=1
            )
            yield method, ratio, found.model


def main(images: int = 1000) -> None:
    """Prints and records the table."""
    model, entry, loader = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000, limit=images
    )
    _, _, few = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000, limit=FEW
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
    ends = (0 - mean) / std, (1 - mean) / std
    rows: list[list[object]] = []

    def look(method: str, ratio: float, network: nn.Module) -> None:
        robust = [
            bequest.robustness(network, seen, "pgd", eps / std, input_range=ends)
            for seen, eps in zip((loader, few), EPS, strict=True)
        ]
        shares = (round(one.robust_accuracy, 1) for one in robust)
        rows.append([method, ratio, round(robust[0].accuracy, 1), *shares])
        print(*rows[-1], flush=True)

    look("dense", 0.0, model)
    for method, ratio, network in pruned(model, torch.zeros(1, *entry.input_shape)):
        look(method, ratio, network)
    record(
        "robust_resnet56",
        rows,
        ["method", "ratio", "top-1", *(f"robust, eps {255 * eps:g}/255" for eps in EPS)],
        seed=0,
        images=f"CIFAR-10 test, 5,000 to {5000 + images - 1:,}; the larger eps on the first {FEW}",
        attack="PGD, 10 steps, random start",
        pruned="inner channels of every block",
        neighbourhood=f"{NEIGHBOURHOOD} standard deviations of the inputs",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
