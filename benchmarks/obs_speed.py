"""How long does ``obs`` take to rank a layer's channels, and how far is that from a matmul's rate?

A convolution of random weights reads n channels at q kernel positions, so that the covariance of
its inputs has d = n·q rows. The loop takes channels out of its inverse one by one, as the formula
reads; its first steps are timed, and the others, on matrices that shrink, take a third of that.
The floor is the arithmetic, d³ operations for the inverse and ⅔·d³ for all downdates, at the rate
of a product of the size that the downdates have. CPU seconds, on one thread.

    python -m benchmarks.obs_speed
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.record import record
from bequest.criteria import OBS
from bequest.criteria.downdates import BLOCK
from bequest.graph.units import Reader, Unit

LAYERS = [(512, 9, 512), (2048, 1, 512), (2048, 9, 512)]
STEPS, SEED = 3, 0


def main() -> None:
    """Measures every layer and writes results/obs_speed.{json,md}."""
    torch.set_num_threads(1)
    rows: list[list[object]] = []
    for channels, each, outputs in LAYERS:
        unit = layer(channels, each, outputs)
        d = channels * each
        whole = seconds(partial(OBS().losses, unit))
        loop = channels / 3 * seconds(partial(steps, unit.readers[0])) / STEPS
        floor = (d**3 + 2 / 3 * d**3) / rate(d)
        rows.append([channels, each, outputs, loop, whole, floor, whole / floor])
        print(*rows[-1], flush=True)
    record(
        "obs_speed",
        rows,
        [
            "channels",
            "kernel positions",
            "outputs",
            "one by one, without the inverse (CPU s)",
            "bequest, with it (CPU s)",
            "floor (CPU s)",
            "times the floor",
        ],
        threads=1,
        seed=SEED,
    )


def layer(channels: int, each: int, outputs: int) -> Unit:
    """A unit with one reader, whose inputs are random mixtures."""
    torch.manual_seed(SEED)
    d = channels * each
    mixed = torch.randn(d, 4096, dtype=torch.float64)
    weight = torch.randn(outputs, d, dtype=torch.float64)
    owner = torch.arange(channels).repeat_interleave(each)
    reader = Reader("reader", weight, mixed @ mixed.T / 4096, owner)
    return Unit("unit", channels, (), None, (), "none", (reader,))


def steps(reader: Reader) -> None:
    """The first downdates one by one, of a matrix that stands for the inverse."""
    inverse, weight = reader.covariance, reader.weight
    inverse.diagonal().add_(1)
    each = int((reader.owner == 0).sum())
    inputs = torch.arange(len(inverse)).view(-1, each)
    for channel in range(STEPS):
        blocks = inverse[inputs[:, :, None], inputs[:, None, :]]
        columns = weight[:, inputs].permute(1, 2, 0)
        factors = torch.linalg.cholesky(blocks)
        torch.linalg.solve_triangular(factors, columns, upper=False).square().sum((1, 2))
        gone = inputs[channel]
        carried = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
        weight -= weight[:, gone] @ carried
        inverse -= inverse[:, gone] @ carried
        inverse[gone, gone] = 1.0


def rate(d: int) -> float:
    """Operations per second of a product (d, BLOCK) × (BLOCK, d)."""
    left, right = torch.randn(2, BLOCK, d, dtype=torch.float64)
    into = torch.zeros(d, d, dtype=torch.float64)
    return 2 * d * d * BLOCK / seconds(lambda: into.addmm_(left.mT, right, alpha=-1))


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
