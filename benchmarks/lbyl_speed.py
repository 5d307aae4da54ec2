"""How much faster is exact LBYL with one factorisation per layer than with one solve per filter?

Half of the 512 filters of a 512×512×3×3 convolution with batch norm are written in terms of the
other half. The loop forms and solves every removed filter's system of normal equations, as the
paper's formula reads. The floor is what no way around remains of: the products of the kept filters
with themselves and with the removed ones, one Cholesky factorisation and its solves, each a call of
PyTorch's. Run: python -m benchmarks.lbyl_speed
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.record import record
from bequest.graph.units import Activation, BatchNorm, Consumer, Producer, Unit
from bequest.restorers import LBYL

CHANNELS, KERNEL, SEED = 512, 9, 0
LAMBDA1, LAMBDA2 = 1e-5, 1e-2
REPEATS, LOOP_REPEATS = 31, 3


def main() -> None:
    """Measures on one thread and on two."""
    unit = layer()
    kept, removed = torch.randperm(CHANNELS).chunk(2)
    kept, removed = kept.sort().values, removed.sort().values
    rows: list[list[object]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        shared(unit, kept, removed)  # warm-up
        fast, ours = timed(lambda: shared(unit, kept, removed), REPEATS)
        least, _ = timed(lambda: floor(unit.producer.weight, kept, removed), REPEATS)
        slow, reference = timed(lambda: loop(unit.producer, kept, removed), LOOP_REPEATS)
        difference = float((ours - reference).abs().max())
        rows.append([threads, slow, fast, slow / fast, least, fast / least, difference])
    record(
        "lbyl_speed",
        rows,
        [
            *("threads", "one solve per filter (s)", "bequest (s)", "factor"),
            *("floor (s)", "bequest over floor", "largest difference"),
        ],
        layer="convolution 512 to 512, 3 by 3, batch norm; half of the filters removed",
        lambda1=LAMBDA1,
        lambda2=LAMBDA2,
        precision="float64",
        repeats=f"median of {REPEATS} for bequest, of {LOOP_REPEATS} for the loop",
        seed=SEED,
    )


def layer() -> Unit:
    """A convolution of random filters with a batch norm, and a consumer of the same size."""
    torch.manual_seed(SEED)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    norm = BatchNorm(
        gamma=1 + 0.1 * normal(CHANNELS),
        beta=normal(CHANNELS),
        mean=normal(CHANNELS),
        var=1 + torch.rand(CHANNELS, dtype=torch.float64),
        eps=1e-5,
    )
    weight = 0.02 * normal(CHANNELS, CHANNELS * KERNEL)
    return Unit(
        "layer",
        CHANNELS,
        (Producer("conv", "conv", weight, None, norm),),
        Activation("relu", torch.relu, homogeneous=True),
        (Consumer("next", 0.02 * normal(CHANNELS, CHANNELS, KERNEL), zero_padded=True),),
        None,
    )


def shared(unit: Unit, kept: Tensor, removed: Tensor) -> Tensor:
    """The library's way."""
    return LBYL(LAMBDA1, LAMBDA2).deliver(unit, kept, removed, SEED).matrix


def floor(weight: Tensor, kept: Tensor, removed: Tensor) -> Tensor:
    """The products and the factorisation alone, whatever they are of."""
    X = weight[kept]
    factor = torch.linalg.cholesky(X @ X.T)
    return torch.cholesky_solve(X @ weight[removed].T, factor)


def loop(producer: Producer, kept: Tensor, removed: Tensor) -> Tensor:
    """The paper's way: one system per removed filter."""
    return torch.stack([single(producer, kept, j) for j in removed.tolist()])


def single(producer: Producer, kept: Tensor, j: int) -> Tensor:
    """κ∘t* of removed filter j from its own normal equations."""
    assert producer.norm is not None
    norm, sigma = producer.norm, producer.norm.sigma
    X, w = producer.weight[kept].T, producer.weight[j]
    slope = norm.gamma[j] / sigma[j]
    kappa = slope * sigma[kept] / norm.gamma[kept]
    a = norm.mean[kept] - sigma[kept] * norm.beta[kept] / norm.gamma[kept]
    c = norm.mean[j] - norm.beta[j] / slope
    weight = LAMBDA1 * slope.square()
    system = X.T @ X + weight * torch.outer(a, a) + LAMBDA2 * kappa.square().diag()
    t: Tensor = torch.linalg.solve(system, X.T @ w + weight * c * a)
    return kappa * t


def timed(work: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """The median time of ``repeats`` runs in seconds, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


if __name__ == "__main__":
    main()
