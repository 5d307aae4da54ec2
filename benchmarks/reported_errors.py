"""Is the error that a report states the one that a user would measure?

For every pruned group the reported error beside that on fresh inputs of the same source, by hooks
on the two finished networks: ‖dense − pruned‖ / ‖dense − mean‖ of what the block behind the group
writes; of the layer's own output where there are no blocks, and in a block whose layer has no error
of another branch to make up for (the first of a stage). Half of the inner channels gone by l1.

Real images: 256 (LeNet 2,560; MobileNetV2, at 224 × 224, 200), and others to measure on (1,000;
MobileNetV2: 250). Made-up ones: as many as the default call makes (MobileNetV2: 128), and again as
many of another seed. Needs the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import bequest
from benchmarks.layer_errors import caught, relative
from benchmarks.mobilenetv2_imagenet import features, pictures
from benchmarks.record import record
from benchmarks.subjects import subject
from bequest.restorers import Regression

RATIO, WITHIN = 0.5, 0.1


@dataclass(frozen=True)
class Subject:
    """A network, its example input, real images to give, others to measure on."""

    name: str
    model: nn.Module
    example: Tensor
    given: Tensor
    fresh: Tensor
    images: int | None
    """How many are made up; None = as by default."""
    place: Callable[[str], str]
    """Where a layer that reads a group shows what it writes: the name of a module."""


def main() -> None:
    """Measures the three networks, and writes results/reported_errors.{json,md}."""
    rows = []
    for one in subjects():
        for source in ("real", "made up"):
            ratios = [reported / found for reported, found in measured(one, source)]
            off = [abs(ratio - 1) for ratio in ratios]
            print(one.name, source, [round(ratio, 3) for ratio in ratios], flush=True)
            rows.append(
                [
                    one.name,
                    source,
                    len(ratios),
                    sum(value <= WITHIN for value in off),
                    round(statistics.median(off), 3),
                    round(min(ratios), 3),
                    round(max(ratios), 3),
                ]
            )
    columns = ["network", "inputs", "groups", "within 10 %", "median distance", "least", "greatest"]
    record("reported_errors", rows, columns, seed=0, ratio=RATIO, criterion="l1")


def measured(one: Subject, source: str) -> Iterator[tuple[float, float]]:
    """Reported and measured error of every group that was refitted."""
    real = source == "real"
    method = Regression(images=len(one.given) if real else one.images)
    made = [] if real else [method.samples(one.model, one.example, None, s) for s in (0, 1)]
    given = [one.given] if real else made[0]
    pruned = bequest.prune(
        one.model, one.example, RATIO, criterion="l1", round_to=1, restorer=method, data=given
    )
    fresh = one.fresh if real else torch.cat([part for (part,) in made[1].chunks])
    groups = [group for group in pruned.plan.groups if group.reconstruction_error is not None]
    places = list(dict.fromkeys(one.place(name) for group in groups for name in group.consumers))
    dense, smaller = (outputs(model.eval(), places, fresh) for model in (one.model, pruned.model))
    errors = {
        place: relative(*pair)
        for place, *pair in zip(places, dense, smaller, strict=True)
        if pair[0].shape == pair[1].shape
    }
    for group in groups:
        found = [errors[p] for p in map(one.place, group.consumers) if p in errors]
        if found:
            yield float(group.reconstruction_error or 0.0), max(found)


def outputs(model: nn.Module, places: list[str], inputs: Tensor) -> list[Tensor]:
    """What modules write for the inputs, which pass in parts."""
    parts = []
    for part in torch.split(inputs, 50):
        with caught(model, places) as found, torch.no_grad():
            model(part)
        parts.append(found)
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def subjects() -> Iterator[Subject]:
    """The three networks."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", limit=1256
    )
    inputs = torch.cat([x for x, _ in images])
    example = torch.zeros(1, *entry.input_shape)
    yield Subject(
        "ResNet-56",
        model,
        example,
        inputs[:256],
        inputs[256:],
        None,
        lambda name: name if name.endswith(".0.conv2") else name.rpartition(".")[0],
    )
    model, entry, images = subject(
        "lenet-300-100",
        "lenet_300_100_fashionmnist.safetensors",
        "fashion_mnist/test.npz",
        limit=3560,
    )
    inputs = torch.cat([x for x, _ in images])
    example = torch.zeros(1, *entry.input_shape)
    yield Subject("LeNet-300-100", model, example, inputs[:2560], inputs[2560:], None, str)
    inputs = pictures(450)[torch.randperm(450, generator=torch.Generator().manual_seed(0))]
    yield Subject(
        "MobileNetV2",
        features(),
        torch.zeros(1, 3, 224, 224),
        inputs[:200],
        inputs[200:],
        128,
        lambda name: name.rpartition(".project")[0] or name,
    )


if __name__ == "__main__":
    main()
