"""Are the published accuracies of LeNet-300-100 on Fashion-MNIST reproduced to the digit?

All 10,000 test images: nothing is tuned here, the hyper-parameters are the published ones.
"""

from __future__ import annotations

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import subject
from bequest.restorers import LBYL, Merge, Regression

RANGE = (-1.0, 1.0)  # of the normalised inputs: without batch norm it's worth saying
REGRESSIONS = ("l2 regression, known range", "l2 regression, known range, 1/f noise")
LAMBDA2 = {0.5: 0.3, 0.6: 0.6, 0.7: 0.3, 0.8: 1e-6}
PUBLISHED = {
    "l2 none": (87.86, 83.03, 71.21, 63.90),
    "l2 lbyl": (88.83, 87.75, 83.92, 78.05),
    "l1 none": (88.40, 85.17, 71.26, 66.76),
    "l1 merge": (88.69, 86.92, 82.75, 80.02),
}


def main() -> None:
    """Prints published and reproduced accuracies side by side, and the library's own defaults."""
    model, entry, images = subject(
        "lenet-300-100", "lenet_300_100_fashionmnist.safetensors", "fashion_mnist/test.npz"
    )

    def accuracy(ratio: float, criterion: str, restorer: object) -> float:
        pruned = bequest.prune(
            model,
            torch.zeros(1, *entry.input_shape),
            ratio,
            criterion=criterion,
            restorer=restorer,  # type: ignore[arg-type]
            round_to=1,
        )
        return round(bequest.evaluate(pruned.model, images).top1, 2)

    rows = []
    for number, (ratio, lambda2) in enumerate(LAMBDA2.items()):
        published = LBYL(lambda2=lambda2, compat="official")
        found = {
            "l2 none": accuracy(ratio, "l2", "none"),
            "l2 lbyl": accuracy(ratio, "l2", published),
            "l1 none": accuracy(ratio, "l1", "none"),
            "l1 merge": accuracy(ratio, "l1", Merge(threshold=0.45)),
        }
        own = [accuracy(ratio, "l2", "lbyl"), accuracy(ratio, "l1", "lbyl")]
        own += [accuracy(ratio, "l2", Regression(value_range=RANGE))]
        own += [accuracy(ratio, "l2", Regression(source="pink", value_range=RANGE))]
        pairs = [v for name, value in found.items() for v in (PUBLISHED[name][number], value)]
        rows.append([ratio, *pairs, *own])
    headings = [f"{name}, {kind}" for name in PUBLISHED for kind in ("published", "ours")]
    record(
        "lenet_published",
        rows,
        ["ratio", *headings, "l2 lbyl, default", "l1 lbyl, default", *REGRESSIONS],
        seed=0,
        dense=round(bequest.evaluate(model, images).top1, 2),
        images="Fashion-MNIST test, all 10,000",
    )


if __name__ == "__main__":
    main()
