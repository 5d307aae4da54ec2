"""What does a walk cost beside the forward passes and the algebra that it can't do without?

    python -m benchmarks.walk_cost

ResNet-56, 256 images, half of the inner channels of every block pruned. The walk without its solves
is measured against one forward pass of the dense and one of the pruned network over the same
images; the solves against the least that their products of rows (2·m·d² + 2·m·d·o operations per
layer) and Cholesky factors (d³/3) would take at the rate that this machine multiplies and factors
matrices of these very sizes at. Times are those of the processor, so that a machine that does other
work at the same time changes them little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, linalg, nn

import bequest
from benchmarks.record import record
from bequest.graph.patches import weight_rows
from bequest.graph.walk import Walk
from bequest.restorers import Regression, regression
from bequest.statistics.samples import Samples


class Clock:
    """Adds up the processor's time of every call of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value."""
        start = time.process_time()
        value = self.function(*args, **kwargs)
        self.seconds += time.process_time() - start
        return value


def main() -> None:
    """Prunes once with clocks in place, then runs the floors."""
    model, x = bequest.zoo.create("resnet56").eval(), torch.zeros(1, 3, 32, 32)
    torch.manual_seed(0)
    walks, sums, solves = Clock(Walk.run), Clock(regression.Moments._add), Clock(regression.solve)
    fed: list[Samples] = []
    shapes: list[tuple[int, tuple[int, ...]]] = []

    class Watched(Regression):
        def samples(self, *args: Any, **kwargs: Any) -> Samples:
            fed.append(super().samples(*args, **kwargs))
            return fed[0]

    def add(moments: Any, *args: Any) -> None:
        shapes.append((args[0].shape[1], tuple(weight_rows(moments.module).shape)))
        sums(moments, *args)

    keep = Walk.run, regression.Moments._add, regression.solve
    gather = regression.patches, regression.outputs_at
    gathers = [Clock(function) for function in gather]
    regression.patches, regression.outputs_at = gathers  # type: ignore[assignment]
    Walk.run = lambda *args, **kwargs: walks(*args, **kwargs)  # type: ignore[method-assign]
    regression.Moments._add = add  # type: ignore[method-assign, assignment]
    regression.solve = solves  # type: ignore[assignment]
    pruned = bequest.prune(model, x, 0.5, criterion="l1", restorer=Watched(), round_to=1)
    Walk.run, regression.Moments._add, regression.solve = keep  # type: ignore[method-assign]
    regression.patches, regression.outputs_at = gather

    algebra = sums.seconds + solves.seconds + sum(one.seconds for one in gathers)
    forward = sum(_forward(one, fed[0]) for one in (model, pruned.model))
    floor = _floor(shapes)
    rows = [
        ["walk without solves", walks.seconds - algebra, "two forward passes", forward, 4],
        ["solves", algebra, "products and Cholesky", floor, 3],
    ]
    record(
        "walk_cost",
        [[*row[:4], row[1] / row[3], row[4]] for row in rows],  # type: ignore[operator]
        ["what", "CPU [s]", "against", "CPU [s] of it", "ratio", "at most"],
        title="Cost of a walk over ResNet-56, 256 images",
        threads=torch.get_num_threads(),
        seed=0,
        machine_was="shared with other work; CPU time, not wall time",
    )


@torch.no_grad()
def _forward(model: nn.Module, samples: Samples) -> float:
    model(*samples.chunks[0])
    start = time.process_time()
    for chunk in samples.chunks:
        model(*chunk)
    return time.process_time() - start


def _floor(shapes: list[tuple[int, tuple[int, ...]]]) -> float:
    """Seconds of the bare products and factors, on matrices of the sizes that were met."""
    total, factored = 0.0, set()
    for m, (g, o, d) in shapes:
        rows, errors = torch.randn(g, m, d), torch.randn(g, m, o)
        start = time.process_time()
        gram = rows.mT @ rows
        rows.mT @ errors
        total += time.process_time() - start
        if (m, g, o, d) not in factored:
            system: Tensor = gram.double() + torch.eye(d)
            start = time.process_time()
            linalg.cholesky(system)
            once = time.process_time() - start
            factored.add((m, g, o, d))
            total += once * sum(1 for other in shapes if other == (m, (g, o, d))) / _chunks(shapes)
    return total


def _chunks(shapes: list[tuple[int, tuple[int, ...]]]) -> int:
    """Blocks of rows per layer: the first layer's run of equal shapes."""
    return next((i for i, shape in enumerate(shapes) if shape != shapes[0]), len(shapes))


if __name__ == "__main__":
    main()
