"""What does it cost a network to be prepared for the loss of 70 % of its weights?

    python -m benchmarks.finishing [--seeds 0 1 2]

ResNet-20 on the first 25,000 CIFAR-10 images, 16 epochs. A plainly trained network is finished on
the hypersphere, with the penalty at 0.7, in five more epochs. So that the comparison is fair the
plain one is trained with the learning rate of the hypersphere, too. Reported are test images 5,000
to 9,999: top-1 as trained, and with 70 % of the weights set to zero and nothing put in their place.
Learning rates were chosen on images 0 to 4,999 (``--develop``, which records nothing). A run goes
on from its last checkpoint in ``--runs``. Needs ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from statistics import median

from torch import nn

from benchmarks.hypersphere import MASK, NETWORK, Training, carried_out, images, recipe, top1
from benchmarks.record import record, renewed
from bequest import hypersphere

SPARSITY = 0.7


def trainings(seed: int) -> dict[str, Training]:
    """Name → the training, by seed."""
    finishing = {"lr": 0.03, "sparsity": SPARSITY, "penalty_warmup": 0.6}
    plain = {"hyperspherical": False, "sparsity": 0.0}
    return {
        "plain, rate 0.1": Training(recipe(16, seed=seed, lr=0.1, **plain)),
        "plain, rate 0.25": Training(recipe(16, seed=seed, **plain)),
        "penalty from the start": Training(recipe(16, seed=seed, sparsity=SPARSITY)),
        "rate 0.1, finished in 5": Training(recipe(5, seed=seed, **finishing), "plain, rate 0.1"),
        "rate 0.25, finished in 5": Training(recipe(5, seed=seed, **finishing), "plain, rate 0.25"),
    }


WAYS = tuple(trainings(0))


def main() -> None:
    """Trains what is not trained yet, measures, and writes results/finishing.{json,md}."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("build/finishing"))
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--develop", action="store_true", help="images 0 to 4,999; records nothing")
    asked = parser.parse_args()
    test = images("test.npz", offset=0 if asked.develop else 5000, limit=5000)
    rows: list[list[object]] = []
    for way in asked.ways:
        dense, pruned = list[float](), list[float]()
        for seed in asked.seeds:
            model = trained(way, seed, asked.runs)
            dense.append(top1(model, test))
            pruned.append(top1(hypersphere.prune(model, SPARSITY, mask=MASK), test))
            print(way, seed, dense[-1], pruned[-1], flush=True)
        spread = f"{min(dense)} to {max(dense)}"
        rows.append([way, median(dense), spread, median(pruned), len(dense)])
    if asked.develop:
        return
    record(
        "finishing",
        renewed("finishing", rows, key=1),
        ["training", "dense, median", "range", "70 % set to zero, median", "seeds"],
        network=f"{NETWORK}, 25,000 CIFAR-10 images, 16 epochs, and what is finished 5 more",
        mask=MASK,
        images="CIFAR-10 test, 5,000 to 9,999",
        units="top-1 in percent",
    )


@cache
def trained(way: str, seed: int, runs: Path) -> nn.Module:
    """The network of a training, from its last checkpoint where there is one."""
    training = trainings(seed)[way]
    start = None if training.start is None else trained(training.start, seed, runs)
    return carried_out(training.recipe, start, runs / f"{way}, seed {seed}")


if __name__ == "__main__":
    main()
