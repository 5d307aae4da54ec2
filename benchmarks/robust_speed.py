"""What does looking at every pair of a layer cost, in one batched pass and pair by pair?

The MLP 784-128-128-64-10 of the MNIST table: impact on the output of all 128·127 ordered pairs of
its first hidden layer, and of as many as a loop can do in reasonable time; then a whole run to
80 %.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import bequest
from benchmarks.record import record
from benchmarks.robust_subjects import mlp, mnist, trained
from bequest.robust.pruning import checked_call
from bequest.robust.run import Pace, Run

LOOPED = 200


def seconds(work: Callable[[], object]) -> float:
    """The least of three times."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Prints and records the times."""
    model = trained("mlp-relu", mlp, mnist, seed=0, epochs=20)
    example = torch.zeros(1, 1, 28, 28)
    run = Run(
        model,
        example,
        (0, 1),
        Pace(1 / 64, bequest.robust.Stochastic(), 0.75),
        checked_call(0.8, "sum", 0),
    )
    layer = run.layers[0]
    pairs = [(a, b) for a in range(128) for b in range(128) if a != b]
    few = pairs[:: len(pairs) // LOOPED]

    batched = seconds(lambda: layer.impacts(pairs, run.first))
    looped = seconds(lambda: [layer.impacts([pair], run.first) for pair in few])
    per_pair = looped / len(few)
    whole = seconds(lambda: bequest.robust.prune(model, example, (0, 1), 0.8, seed=0))
    rows: list[list[object]] = [
        ["all 16,256 pairs, one pass", batched],
        [f"one pair at a time (mean of {len(few)})", per_pair],
        ["all pairs, one at a time", per_pair * len(pairs)],
        ["times faster", per_pair * len(pairs) / batched],
        ["whole run to 80 %, tracing included", whole],
    ]
    record("robust_speed", rows, ["what", "seconds"], threads=torch.get_num_threads(), seed=0)


if __name__ == "__main__":
    main()
