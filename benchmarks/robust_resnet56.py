"""Which way of pruning ResNet-56 keeps the most images that PGD can't turn?

CIFAR-10, PGD with ten steps, eps in pixels. ``lbyl``, ``regression`` and plain pruning at once, by
the smallest l1 norm, and progressive pruning by pairs with several restorers; all of the inner
channels of every block.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.subjects import subject

EPS = (0.5 / 255, 1 / 255)
RATIOS = (0.3, 0.5)


def pruned(
    model: nn.Module, example: torch.Tensor, ends: tuple[torch.Tensor, torch.Tensor]
) -> Iterator[tuple[str, float, nn.Module]]:
    """Method, ratio and network, one after another."""
    for ratio in RATIOS:
        for restorer in ("none", "lbyl", "regression"):
            found = bequest.prune(
                model, example, ratio, criterion="l1", restorer=restorer, round_to=1
            )
            yield restorer, ratio, found.model
        for restorer in ("sum", "lbyl", "regression"):
            found = bequest.robust.prune(model, example, ends, ratio, step=1 / 8, restorer=restorer)
            yield f"stochastic + {restorer}", ratio, found.model


def main(images: int = 500) -> None:
    """Prints and records the table."""
    model, entry, loader = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000, limit=images
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
    ends = (0 - mean) / std, (1 - mean) / std
    example = torch.zeros(1, *entry.input_shape)
    rows: list[list[object]] = []

    def look(method: str, ratio: float, network: nn.Module) -> None:
        robust = [
            bequest.robustness(network, loader, "pgd", eps / std, input_range=ends) for eps in EPS
        ]
        shares = (round(one.robust_accuracy, 1) for one in robust)
        rows.append([method, ratio, round(robust[0].accuracy, 1), *shares])
        print(*rows[-1], flush=True)

    look("dense", 0.0, model)
    for method, ratio, network in pruned(model, example, ends):
        look(method, ratio, network)
    record(
        "robust_resnet56",
        rows,
        ["method", "ratio", "top-1", *(f"robust, eps {255 * eps:g}/255" for eps in EPS)],
        seed=0,
        images=f"CIFAR-10 test, 5,000 to {5000 + images - 1:,}",
        attack="PGD, 10 steps, random start",
        pruned="inner channels of every block; stochastic in steps of 1/8",
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
