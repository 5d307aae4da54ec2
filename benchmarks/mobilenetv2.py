"""How much accuracy stays on a MobileNetV2 (CIFAR form) whose expansions are pruned, without data?

The network is trained by ``benchmarks.train_reference``. The wide channels inside every inverted
residual (expansion, depthwise convolution, input of the projection) lose the same share. Reported
on test images 5,000 to 7,499; nothing was developed on this network. Needs the images in
``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import cut, subject
from benchmarks.train_reference import weights
from bequest.restorers import Regression

RATIOS = (0.1, 0.2, 0.3, 0.5)
PAIRS = (
    ("l2", "none"),
    ("l2", "merge"),
    ("l2", "lbyl"),
    ("l2", "regression"),
    ("obs", "regression"),
)


def main() -> None:
    """Measures the table and writes results/mobilenetv2.{json,md}."""
    name, data = "mobilenetv2-cifar", "cifar10/test.npz"
    model, entry, images = subject(name, weights(name), data, offset=5000, limit=2500)
    example = torch.zeros(1, *entry.input_shape)
    samples = Regression().samples(model, example, None, 0)
    dense = bequest.evaluate(model, images).top1
    rows: list[list[object]] = []
    for ratio in RATIOS:
        row: list[object] = [ratio]
        for criterion, restorer in PAIRS:
            pruned = cut(model, example, ratio, criterion, restorer, samples)
            row.append(round(bequest.evaluate(pruned.model, images).top1, 2))
        before, after = pruned.report.before, pruned.report.after
        rows.append(
            [*row, round(after.params / before.params, 3), round(after.macs / before.macs, 3)]
        )
        print(*rows[-1], flush=True)
    record(
        "mobilenetv2",
        rows,
        ["ratio", *(f"{r}, {c}" for c, r in PAIRS), "params kept", "MACs kept"],
        seed=0,
        dense=round(dense, 2),
        images="CIFAR-10 test, 5,000 to 7,499",
        pruned="inner channels of every block, round_to=1",
    )


if __name__ == "__main__":
    main()
