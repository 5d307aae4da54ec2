"""What does a walk cost beside the forward passes and the algebra that it can't do without?

    python -m benchmarks.walk_cost

ResNet-56, 256 images, half of the inner channels of every block pruned. The walk without its solves
is measured against one forward pass of the dense and one of the pruned network over the same
images; the solves (gathering rows, their products, the factorisations) against the bare products
and Cholesky factors of random matrices of the very same sizes. All times are those of the
processor, so that a machine that does other work at the same time changes them little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import linalg, nn

import bequest
from benchmarks.record import record
from bequest.calibration.moments import Moments
from bequest.calibration.walk import Walk
from bequest.restorers import Regression
from bequest.restorers.normal_equations import solve


class Clock:
    """Adds up the processor's time of all calls of a function, and keeps their first arguments."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.met: list[Any] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, watched."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.met.append(args)
            start = time.process_time()
            value = function(*args, **kwargs)
            self.seconds += time.process_time() - start
            return value

        return call


def main() -> None:
    """Prunes once with clocks in place, then runs what it is measured against."""
    torch.manual_seed(0)
    model, x = bequest.zoo.create("resnet56").eval(), torch.zeros(1, 3, 32, 32)
    walk, sums, solves = Clock(), Clock(), Clock()
    with (
        patch.object(Walk, "run", walk.around(Walk.run)),
        patch.object(Moments, "add", sums.around(Moments.add)),
        patch("bequest.restorers.regression.solve", solves.around(solve)),
    ):
        restorer = Regression(images=256)
        pruned = bequest.prune(model, x, 0.5, criterion="l1", restorer=restorer, round_to=1)
    (_, inputs, _), _ = walk.met  # fitted, then measured
    algebra = sums.seconds + solves.seconds
    forward = sum(_forward(one, inputs) for one in (model, pruned.model))
    floor = sum(_floor(moments) for (moments,), _ in solves.met)
    rest = walk.seconds - algebra
    record(
        "walk_cost",
        [
            ["walk without solves", rest, "two forward passes", forward, rest / forward, 4],
            ["solves", algebra, "products and Cholesky", floor, algebra / floor, 3],
        ],
        ["what", "CPU [s]", "against", "CPU [s] of it", "ratio", "at most"],
        title="Cost of a walk over ResNet-56, 256 images",
        layers=len(solves.met),
        threads=torch.get_num_threads(),
        seed=0,
    )


@torch.no_grad()
def _forward(model: nn.Module, chunks: Any) -> float:
    model(*chunks[0])
    start = time.process_time()
    for chunk in chunks:
        model(*chunk)
    return time.process_time() - start


def _floor(moments: Moments) -> float:
    """Seconds of XᵀX and XᵀE in single, and of a Cholesky factor in double precision."""
    g, d, o = moments.cross.shape
    rows, errors = torch.randn(g, moments.rows, d), torch.randn(g, moments.rows, o)
    system = torch.eye(d, dtype=torch.float64).expand(g, d, d).contiguous()
    start = time.process_time()
    rows.mT @ rows
    rows.mT @ errors
    linalg.cholesky(system)
    return time.process_time() - start


if __name__ == "__main__":
    main()
