"""What do steps of refinement behind the closed form gain on ResNet-56 (CIFAR-10), without data?

Inner channels of every block removed by l1; the same synthetic inputs for all rows. Reported on
test images 5,000 to 9,999; the rate of the steps was chosen on images 0 to 999 (0.01, 0.02, 0.05 at
ratio 0.7). Needs the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import time

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import subject
from bequest.restorers import Regression


def main() -> None:
    """Measures the table and writes results/refinement.{json,md}."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000, limit=5000
    )
    example = torch.zeros(1, *entry.input_shape)
    samples = Regression().samples(model, example, None, 0)  # as every call would make them
    rows: list[list[object]] = []
    for ratio in (0.5, 0.7):
        for steps in (0, 100, 300):
            start = time.process_time()
            restorer = Regression(refine=steps)
            pruned = bequest.prune(
                model, example, ratio, criterion="l1", restorer=restorer, data=samples, round_to=1
            )
            seconds = time.process_time() - start
            top1 = bequest.evaluate(pruned.model, images).top1
            rows.append([ratio, steps, round(top1, 2), round(seconds)])
            print(*rows[-1], flush=True)
    record(
        "refinement",
        rows,
        ["ratio", "steps", "top-1", "CPU seconds"],
        seed=0,
        dense=round(bequest.evaluate(model, images).top1, 2),
        images="CIFAR-10 test, 5,000 to 9,999",
        developed_on="CIFAR-10 test, 0 to 999: the rate",
        pruned="inner channels of every block by l1, round_to=1",
    )


if __name__ == "__main__":
    main()
