"""How much accuracy do the data-free settings keep on ResNet-56 (CIFAR-10), seed by seed?

Inner channels of every block. Two qualities of the same method: the default, 256 images that take
12 steps of inversion, and 1,024 images that take 30; with channels chosen by l1 and by obs, one
ratio for all groups, and with ratios allocated so that as many multiply-accumulates stay. Beside
them the calibrated form, with 512 training images. Developed on test images 0 to 4,999, reported on
5,000 to 9,999; medians of three seeds. Needs the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import opened, subject
from bequest import Pruned
from bequest.calibration.samples import Samples
from bequest.restorers import Regression

RATIOS = (0.3, 0.5, 0.7)
SEEDS = (0, 1, 2)
LEVELS = {"default": Regression(), "more images": Regression(images=1024, inversion=30)}
CRITERIA = ("l1", "obs")
ALLOCATED = "obs, allocated"


def main() -> None:
    """Measures the table and writes results/restoration.{json,md}."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000
    )
    example = torch.zeros(1, *entry.input_shape)

    def pruned(data: Samples | Iterable[Any], criterion: str, **changes: Any) -> Pruned:
        return bequest.prune(model, example, criterion=criterion, data=data, round_to=1, **changes)

    def top1(one: Pruned) -> float:
        return bequest.evaluate(one.model, images).top1

    rows: list[list[object]] = []
    for level, restorer in LEVELS.items():
        inputs, seconds = [], []
        for seed in SEEDS:
            start = time.process_time()
            inputs.append(restorer.samples(model, example, None, seed))
            seconds.append(time.process_time() - start)
        left = dict.fromkeys(RATIOS, 1.0)
        for criterion in (*CRITERIA, ALLOCATED):
            for ratio in RATIOS:
                cut: dict[str, Any] = {"ratio": ratio}
                if criterion == ALLOCATED:
                    cut = {"ratio": None, "target": f"macs:{left[ratio]:.3f}"}
                found = []
                for samples in inputs:
                    one = pruned(samples, criterion.partition(",")[0], **cut)
                    found.append(top1(one))
                    left[ratio] = one.report.after.macs / one.report.before.macs
                rows.append(_row(level, criterion, ratio, found, statistics.median(seconds)))
                print(*rows[-1], flush=True)
    real = opened(entry, "cifar10/train-0.npz", limit=512)
    for ratio in RATIOS:
        found = [top1(pruned(real, "l1", ratio=ratio, restorer=Regression(images=512)))]
        rows.append(_row("512 real images", "l1", ratio, found, 0.0))
        print(*rows[-1], flush=True)
    record(
        "restoration",
        rows,
        ["inputs", "criterion", "ratio", "top-1, median", "least", "most", "CPU s for the inputs"],
        seeds=len(SEEDS),
        dense=round(bequest.evaluate(model, images).top1, 2),
        images="CIFAR-10 test, 5,000 to 9,999",
        developed_on="CIFAR-10 test, 0 to 4,999",
        pruned="inner channels of every block, round_to=1",
    )


def _row(
    level: str, criterion: str, ratio: float, found: list[float], seconds: float
) -> list[object]:
    numbers = (statistics.median(found), min(found), max(found))
    return [level, criterion, ratio, *(round(n, 2) for n in numbers), round(seconds, 1)]


if __name__ == "__main__":
    main()
