"""What does pruning without retraining cost a network that was trained for it?

ResNet-20 on the first 25,000 CIFAR-10 images, one seed, 16 epochs from random weights: trained
plainly; on the hypersphere with the penalty for half and for 70 % of the weights; and the plain one
finished on the hypersphere with the penalty for half in five more epochs. Then, without retraining,
30 to 90 % of the weights are set to zero and means put in their place per scope. Reported are test
images 5,000 to 9,999; what was tried while this was built was looked at on images 0 to 4,999
(``--develop``). A run goes on from its last checkpoint in ``--runs`` when the benchmark is started
again. Needs the real images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import bequest
from benchmarks.record import record
from benchmarks.subjects import opened
from bequest import hypersphere
from bequest.data import ImageLoader
from bequest.hypersphere import Recipe
from bequest.hypersphere.run import CHECKPOINT

NETWORK = "resnet20"
SPARSITIES = (0.3, 0.5, 0.7, 0.9)
SCOPES = ("filter", "layer", "signed")
MASK = "global"


@dataclass(frozen=True)
class Training:
    """A recipe and the training whose network it starts from; None = random weights."""

    recipe: Recipe
    start: str | None = None


def recipe(epochs: int, **changes: object) -> Recipe:
    """What all trainings have in common, and what is particular to one."""
    return Recipe(epochs=epochs, precision="bf16-mixed", mask=MASK, **changes)  # type: ignore[arg-type]


TRAININGS = {
    "plain": Training(recipe(16, lr=0.1, hyperspherical=False, sparsity=0.0)),
    "penalty at 0.5": Training(recipe(16, sparsity=0.5)),
    "penalty at 0.7": Training(recipe(16, sparsity=0.7)),
    "finished": Training(recipe(5, lr=0.03, sparsity=0.5, penalty_warmup=0.6), "plain"),
}


def images(name: str, *, offset: int = 0, limit: int | None = None) -> ImageLoader:
    """CIFAR-10 in the network's preprocessing."""
    entry = bequest.zoo.entry(NETWORK)
    return opened(entry, f"cifar10/{name}", offset=offset, limit=limit)


def trained(name: str, runs: Path) -> nn.Module:
    """The network of a training, from its last checkpoint where there is one."""
    training = TRAININGS[name]
    start = None if training.start is None else trained(training.start, runs)
    return carried_out(training.recipe, start, runs / name)


def carried_out(recipe: Recipe, start: nn.Module | None, folder: Path) -> nn.Module:
    """The network of a recipe, from the folder's checkpoint where there is one.

    Args:
        recipe: its seed is that of the weights, too, where there is no ``start``.
        start: the network to go on from; None = one of random weights.
        folder: of the checkpoint.
    """
    if start is None:
        torch.manual_seed(recipe.seed)
        start = bequest.zoo.create(NETWORK)
    done = hypersphere.train(
        start,
        images("train-0.npz"),
        recipe,
        folder,
        resume=(folder / CHECKPOINT).exists(),
        checkpoint_every=100,
        report=lambda epoch: print(folder.name, epoch, flush=True),
        progress=True,
    )
    return done.model


def top1(model: nn.Module, test: ImageLoader) -> float:
    """Of a network's plain form, which computes the same in one convolution per layer."""
    plain = hypersphere.deconvert(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return round(bequest.evaluate(plain, test).top1, 2)


def measured(name: str, model: nn.Module, test: ImageLoader) -> list[list[object]]:
    """Top-1 dense, zeroed, and recovered per scope, a row per sparsity."""
    dense = top1(model, test)
    rows: list[list[object]] = []
    for sparsity in SPARSITIES:
        pruned = hypersphere.prune(model, sparsity, mask=MASK)
        zeroed = top1(pruned, test)
        recovered = [top1(hypersphere.recover(pruned, scope), test) for scope in SCOPES]  # type: ignore[arg-type]
        rows.append([name, sparsity, dense, zeroed, round(zeroed - dense, 2), *recovered])
        print(*rows[-1], flush=True)
    return rows


def main() -> None:
    """Trains what is not trained yet, measures, and writes results/hypersphere.{json,md}."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, default=Path("build/hypersphere"))
    parser.add_argument("--trainings", nargs="+", default=list(TRAININGS), choices=TRAININGS)
    parser.add_argument("--develop", action="store_true", help="images 0 to 4,999; records nothing")
    asked = parser.parse_args()
    test = images("test.npz", offset=0 if asked.develop else 5000, limit=5000)
    rows = []
    for name in asked.trainings:
        rows += measured(name, trained(name, asked.runs), test)
    if asked.develop:
        return
    record(
        "hypersphere",
        rows,
        ["training", "sparsity", "dense", "zeroed", "change", *SCOPES],
        seed=0,
        network=f"{NETWORK}, 25,000 CIFAR-10 images, one seed, 16 epochs; finished: 5 more",
        learning_rate="0.1 (plain), 0.25, 0.03 (finished)",
        mask=MASK,
        images="CIFAR-10 test, 5,000 to 9,999",
        units="top-1 in percent; filter, layer, signed: recovered by means of that scope",
    )


if __name__ == "__main__":
    main()
