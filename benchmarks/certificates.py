"""How close are certificates to what inputs reach, and what do they cost?

The ReLU MLP of the MNIST table and the CNN of the CIFAR-10 table, 12.5 and 50 % of the units pruned
by several restorers: the width of the certified change by intervals, by back-substitution of the
difference, and by auto_LiRPA's CROWN on pruned(x) − dense(x) as one module; the width that gradient
ascent on that change finds; seconds.

``python -m benchmarks.certificates`` makes the tables (``mlp``, ``cnn``: one of them alone).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tests.robust.lirpa import MISSING, Difference, crown
from tests.robust.search import reached
from torch import Tensor, nn

import bequest
from benchmarks.record import record
from benchmarks.robust_subjects import cifar, cnn, mlp, mnist, trained
from bequest.robust import certificates, certify


@dataclass(frozen=True)
class Subject:
    """A network, and how it is looked at.

    Attributes:
        make: makes it.
        data: what it is trained on.
        epochs: of training.
        layers: those that are pruned.
        images: how many held-out ones.
        sizes: of the boxes; None = the whole range, one box.
    """

    make: Callable[[], nn.Module]
    data: Any
    epochs: int
    layers: tuple[str, ...]
    images: int
    sizes: tuple[float | None, ...]


SUBJECTS = {
    "mlp": Subject(mlp, mnist, 20, ("*",), 100, (0.01, 0.05, None)),
    "cnn": Subject(cnn, cifar, 12, ("9", "11"), 1, (0.01, 0.001)),
}


def pruned(
    model: nn.Module, example: Tensor, layers: tuple[str, ...], ratio: float
) -> Iterator[tuple[str, nn.Module]]:
    """Restorer and network: pairs merged in steps, and three ways at once."""
    shares = dict.fromkeys(layers, ratio)
    stochastic = bequest.robust.prune(model, example, (0, 1), shares, 1 / 8)
    yield "stochastic", stochastic.model
    for restorer in ("none", "lbyl", "regression"):
        made = bequest.prune(
            model,
            example,
            shares,
            criterion="l2",
            restorer=restorer,
            round_to=1,
            progress=False,
        )
        yield restorer, made.model


def timed(call: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, float]:
    """What a call gives, and its seconds of CPU."""
    start = time.process_time()
    lower, upper = call()
    return lower, upper, time.process_time() - start


def by_intervals(dense: nn.Module, model: nn.Module, *given: Any) -> tuple[Tensor, Tensor]:
    """The change without any back-substitution."""
    module: Any = certificates
    effort, module.EFFORT = module.EFFORT, 0
    try:
        found = certify(dense, model, *given)
    finally:
        module.EFFORT = effort
    return found.lower, found.upper


def measured(dense: nn.Module, model: nn.Module, x: Tensor, eps: float | None) -> list[object]:
    """Widths of four kinds, their quotients, seconds, certified agreement."""
    x = x if eps is not None else x[:1]
    low, high = ((x + sign * (eps or 2)).clamp(0, 1) for sign in (-1, 1))
    interval = timed(partial(by_intervals, dense, model, x, eps))
    start = time.process_time()
    found = certify(dense, model, x, eps)
    seconds = time.process_time() - start
    lower, upper = (end.view(len(x), -1) for end in (found.lower, found.upper))
    rival = None
    if not MISSING and x.ndim == 4 and x.shape[1] == 1:  # it can't read the other's softmax
        rival = timed(partial(crown, dense, model, low, high))
    least, most = reached(Difference(dense, model), low, high, steps=40, starts=2)
    assert bool((lower <= least).all() and (most <= upper).all())
    width, reach = (upper - lower).mean().item(), (most - least).mean().item()
    largest = torch.maximum(-lower, upper).amax(1) / torch.maximum(-least, most).amax(1)
    quotients = width / max(reach, 1e-9), largest.median().item()
    return [
        "all" if eps is None else eps,
        *(round(one, 4) for one in (width_of(interval), width)),
        None if rival is None else round(width_of(rival), 4),
        round(reach, 4),
        *(round(one, 2) if reach > 1e-9 else None for one in quotients),
        round(seconds / len(x), 3),
        None if rival is None else round(rival[2] / len(x), 3),
        None if found.agreement is None else round(100 * found.agreement, 1),
    ]


def width_of(found: tuple[Any, ...]) -> float:
    """Mean over outputs and inputs."""
    return float(torch.as_tensor(found[1] - found[0]).mean())


def main(names: list[str]) -> None:
    """Prints and records a table per network."""
    for name in names or SUBJECTS:
        of, rows = SUBJECTS[name], list[list[object]]()
        model = trained(f"{name}-relu", of.make, of.data, seed=0, epochs=of.epochs).double()
        x = of.data()[1][0][: of.images].double()
        for ratio in (0.125, 0.5):
            for restorer, network in pruned(model, x[:1], of.layers, ratio):
                for eps in of.sizes:
                    found = measured(model, network.double(), x, eps)
                    rows.append([name, restorer, ratio, *found])
                    print(*rows[-1], flush=True)
        record(
            "certificates" if name == "mlp" else f"certificates_{name}",
            rows,
            [
                *("network", "restorer", "ratio", "eps", "intervals", "back-substitution", "CROWN"),
                *("found", "quotient of widths", "quotient of largest changes"),
                *("CPU seconds per input", "CROWN's", "certified agreement, %"),
            ],
            widths="of the interval of each output, mean over outputs and inputs",
            found="gradient ascent on each output's change, 40 steps from two starts",
            images=f"{of.images} held-out ones; eps all: one box, all inputs in 0..1",
            seed=0,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
