"""How much accuracy does each restorer keep on ResNet-56 (CIFAR-10), without data?

Inner channels of every block by l1, ratios 0.1 to 0.7, the main restorers with their defaults.
Reported here are test images 5,000 to 9,999. A search over 0 to 4,999 chooses the default λ of
``lbyl``; while it was built, some values were looked at on later images too.
Needs the real weights and images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import cut, subject
from bequest.restorers import Regression

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
CRITERION = "l1"
RESTORERS = ("none", "merge", "lbyl", "regression")


def main() -> None:
    """Measures the table and writes results/resnet56.{json,md}."""
    model, entry, images = subject(
        "resnet56", "resnet56_cifar10.safetensors", "cifar10/test.npz", offset=5000, limit=5000
    )
    example = torch.zeros(1, *entry.input_shape)
    samples = Regression().samples(model, example, None, 0)  # as every call would make them
    rows = []
    for ratio in RATIOS:
        row: list[object] = [CRITERION, ratio]
        for restorer in RESTORERS:
            pruned = cut(model, example, ratio, CRITERION, restorer, samples)
            row.append(round(bequest.evaluate(pruned.model, images).top1, 2))
        before, after = pruned.report.before, pruned.report.after
        row += [round(after.params / before.params, 3), round(after.macs / before.macs, 3)]
        rows.append(row)
        print(*row, flush=True)
    dense = bequest.evaluate(model, images).top1
    record(
        "resnet56",
        rows,
        ["criterion", "ratio", *RESTORERS, "params kept", "MACs kept"],
        seed=0,
        dense=round(dense, 2),
        images="CIFAR-10 test, 5,000 to 9,999",
        developed_on="CIFAR-10 test, 0 to 4,999 choose the default λ; "
        "some were also looked at on later images",
        pruned="inner channels of every block, round_to=1",
    )


if __name__ == "__main__":
    main()
