"""What does refinement behind the closed form gain on ResNet-56 (CIFAR-10), without data?

Inner channels of every block removed by l1; the same synthetic inputs for both forms. Reported on
test images 5,000 to 9,999, medians of three seeds; steps and rate were chosen on images 0 to 1,999.
Needs the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import statistics
import time

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import subject
from bequest.restorers import Regression

SEEDS = (0, 1, 2)


def main() -> None:
    """Measures the table and writes results/refinement.{json,md}."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000, limit=5000
    )
    example = torch.zeros(1, *entry.input_shape)
    inputs = [Regression().samples(model, example, None, seed) for seed in SEEDS]
    rows: list[list[object]] = []
    for ratio in (0.3, 0.5, 0.7):
        for name, steps in (("closed form", 0), ("refined", None)):
            found, seconds = [], []
            for samples in inputs:
                start = time.process_time()
                pruned = bequest.prune(
                    model,
                    example,
                    ratio,
                    criterion="l1",
                    restorer=Regression(refine=steps),
                    data=samples,
                    round_to=1,
                )
                seconds.append(time.process_time() - start)
                found.append(round(bequest.evaluate(pruned.model, images).top1, 2))
            spent = round(statistics.median(seconds))
            rows.append([ratio, name, statistics.median(found), min(found), max(found), spent])
            print(*rows[-1], flush=True)
    record(
        "refinement",
        rows,
        ["ratio", "form", "top-1, median", "least", "most", "CPU seconds"],
        seeds=len(SEEDS),
        dense=round(bequest.evaluate(model, images).top1, 2),
        images="CIFAR-10 test, 5,000 to 9,999",
        developed_on="CIFAR-10 test, 0 to 1,999: steps and rate",
        pruned="inner channels of every block by l1, round_to=1",
    )


if __name__ == "__main__":
    main()
