"""How much accuracy do the data-free settings keep on ResNet-56 (CIFAR-10), and what do they cost?

    python -m benchmarks.effort [SEED ...]

Inner channels of every block, by the three efforts of the default restorer: channels chosen by l1
at one ratio for all groups, and by obs with ratios allocated so that as many multiply-accumulates
stay (``target="macs:..."``). Beside them 256 real training images. Developed on test images 0 to
4,999, reported on 5,000 to 9,999; medians of the seeds, CPU seconds of a call with its inputs.
Needs the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import opened, subject
from bequest.calibration.samples import Samples
from bequest.restorers import Regression

RATIOS = (0.3, 0.5, 0.7)
EFFORTS = ("quick", "default", "long")
UNIFORM, ALLOCATED = "l1, one ratio", "obs, allocated"
REAL = 256


def main() -> None:
    """Measures the table and writes results/effort.{json,md}."""
    seeds = [int(word) for word in sys.argv[1:]] or [0, 1, 2]
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000
    )
    example = torch.zeros(1, *entry.input_shape)
    left = dict.fromkeys(RATIOS, 1.0)

    def measured(setting: str, ratio: float, restorer: Regression, data: Any) -> list[float]:
        """Top-1 and CPU seconds."""
        cut: dict[str, Any] = {"ratio": ratio, "criterion": "l1"}
        if setting == ALLOCATED:
            cut = {"target": f"macs:{left[ratio]:.3f}", "criterion": "obs"}
        start = time.process_time()
        one = bequest.prune(model, example, restorer=restorer, data=data, round_to=1, **cut)
        seconds = time.process_time() - start
        if setting == UNIFORM:
            left[ratio] = one.report.after.macs / one.report.before.macs
        return [bequest.evaluate(one.model, images).top1, seconds]

    rows: list[list[object]] = []

    def add(inputs: str, setting: str, ratio: float, found: list[list[float]]) -> None:
        top1, seconds = zip(*found, strict=True)
        numbers = (statistics.median(top1), min(top1), max(top1))
        spent = round(statistics.median(seconds))
        rows.append([inputs, setting, ratio, *(round(n, 2) for n in numbers), spent])
        print(*rows[-1], flush=True)

    for effort in EFFORTS:
        restorer = Regression(effort=effort)
        made: list[tuple[Samples, float]] = []
        for seed in seeds:
            start = time.process_time()
            samples = restorer.samples(model, example, None, seed)
            made.append((samples, time.process_time() - start))
        for setting in (UNIFORM, ALLOCATED):
            for ratio in RATIOS:
                pairs = [(measured(setting, ratio, restorer, one), more) for one, more in made]
                add(effort, setting, ratio, [[top1, s + more] for (top1, s), more in pairs])
    real = opened(entry, "cifar10/train-0.npz", limit=REAL)
    for setting in (UNIFORM, ALLOCATED):
        for ratio in RATIOS:
            add(
                f"{REAL} real images",
                setting,
                ratio,
                [measured(setting, ratio, Regression(), real)],
            )
    record(
        "effort",
        rows,
        ["effort", "channels", "ratio", "top-1, median", "least", "most", "CPU s"],
        seeds=len(seeds),
        dense=round(bequest.evaluate(model, images).top1, 2),
        images="CIFAR-10 test, 5,000 to 9,999",
        developed_on="CIFAR-10 test, 0 to 4,999",
        pruned="inner channels of every block, round_to=1",
    )


if __name__ == "__main__":
    main()
