"""What is each part of ``regression`` worth on ResNet-56 (CIFAR-10)?

One thing is changed at a time. Inner channels of every block, seed 0; the rows with "allocated"
keep as many multiply-accumulates as one ratio for all groups does. These are the images on which
the defaults were decided, 0 to 1,499 of the test images: differences below a point are noise. Needs
the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import opened, subject
from bequest.calibration.samples import Samples
from bequest.restorers import Regression

RATIOS = (0.5, 0.7)
DEFAULT = Regression()
CHANGES: dict[str, tuple[Regression, dict[str, Any]]] = {
    "the default: 256 dead leaves, 12 steps of inversion, l1": (DEFAULT, {}),
    "images as drawn": (Regression(inversion=0), {}),
    "images as drawn, 1/f noise": (Regression(inversion=0, source="pink"), {}),
    "images as drawn, white noise": (Regression(inversion=0, source="white"), {}),
    "1/f noise": (Regression(source="pink"), {}),
    "40 steps": (Regression(inversion=40), {}),
    "512 images": (Regression(images=512), {}),
    "ridge 0.001": (Regression(ridge=1e-3), {}),
    "ridge 0.1": (Regression(ridge=1e-1), {}),
    "channels chosen by l2": (DEFAULT, {"criterion": "l2"}),
    "channels chosen by mutual-information": (DEFAULT, {"criterion": "mutual-information"}),
    "channels chosen by obs": (DEFAULT, {"criterion": "obs"}),
    "obs, allocated": (DEFAULT, {"criterion": "obs", "allocated": True}),
}


def main() -> None:
    """Measures the table and writes results/ablation.{json,md}."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", limit=1500
    )
    example = torch.zeros(1, *entry.input_shape)

    @cache
    def samples(images: int | None, source: str, inversion: int) -> Samples:
        restorer = Regression(images=images, source=source, inversion=inversion)
        return restorer.samples(model, example, None, 0)

    def top1(data: Any, restorer: Regression, ratio: float, **changes: Any) -> float:
        cut: dict[str, Any] = {"criterion": "l1", "ratio": ratio} | changes
        if cut.pop("allocated", False):
            plain = bequest.prune(model, example, ratio, restorer="none", round_to=1).report
            cut |= {"ratio": None, "target": f"macs:{plain.after.macs / plain.before.macs:.3f}"}
        pruned = bequest.prune(model, example, restorer=restorer, data=data, round_to=1, **cut)
        return round(bequest.evaluate(pruned.model, images).top1, 2)

    rows: list[list[object]] = []
    for name, (restorer, changes) in CHANGES.items():
        data = samples(restorer.images, restorer.source, restorer.inversion)
        rows.append([name, *(top1(data, restorer, ratio, **changes) for ratio in RATIOS)])
        print(*rows[-1], flush=True)
    real = opened(entry, "cifar10/train-0.npz", limit=256)
    rows.append(["256 real images", *(top1(real, DEFAULT, ratio) for ratio in RATIOS)])
    record(
        "ablation",
        rows,
        ["change", *(f"top-1 at {100 * ratio:g} %" for ratio in RATIOS)],
        seed=0,
        dense=round(bequest.evaluate(model, images).top1, 2),
        images="CIFAR-10 test, 0 to 1,499: those that the defaults were decided on",
        pruned="inner channels of every block, round_to=1",
    )


if __name__ == "__main__":
    main()
