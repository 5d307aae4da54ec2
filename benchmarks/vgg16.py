"""How much accuracy do restorers keep on a VGG-16 trained on CIFAR-10, beside the published table?

The network is trained by ``benchmarks.train_reference`` on 25,000 images; the published one was
trained on all 50,000 and is another network: compare what each method keeps, not the last digit.
All 13 convolutions lose the same share, l2 criterion. Reported on test images 5,000 to 7,499;
nothing was developed on this network. Needs the images in ``$BEQUEST_SHARED``.
"""

from __future__ import annotations

import torch

import bequest
from benchmarks.record import record
from benchmarks.subjects import cut, subject
from benchmarks.train_reference import weights
from bequest.restorers import Regression

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
PUBLISHED = {  # dense 93.70: pruned plainly, Neuron Merging, LBYL (Lee et al. 2025, table 1)
    0.1: (89.43, 91.93, 92.04),
    0.2: (71.77, 87.24, 87.84),
    0.3: (56.95, 76.91, 83.25),
    0.4: (31.74, 54.32, 66.81),
    0.5: (12.37, 32.58, 45.71),
}


def main() -> None:
    """Measures the table and writes results/vgg16.{json,md}."""
    name, data = "vgg16-cifar", "cifar10/test.npz"
    model, entry, images = subject(name, weights(name), data, offset=5000, limit=2500)
    example = torch.zeros(1, *entry.input_shape)
    samples = Regression().samples(model, example, None, 0)

    def accuracy(ratio: float, restorer: str, criterion: str = "l2") -> float:
        pruned = cut(model, example, ratio, criterion, restorer, samples)
        return round(bequest.evaluate(pruned.model, images).top1, 2)

    rows: list[list[object]] = []
    for ratio in RATIOS:
        ours = [accuracy(ratio, name) for name in ("none", "merge", "lbyl", "regression")]
        rows.append([ratio, *PUBLISHED[ratio], *ours, accuracy(ratio, "regression", "obs")])
        print(*rows[-1], flush=True)
    names = ("none", "merge", "lbyl")
    record(
        "vgg16",
        rows,
        [
            "ratio",
            *(f"{name}, published" for name in names),
            *(f"{name}, ours" for name in names),
            "regression",
            "regression, obs",
        ],
        seed=0,
        dense=round(bequest.evaluate(model, images).top1, 2),
        dense_published=93.7,
        images="CIFAR-10 test, 5,000 to 7,499",
        pruned="all 13 convolutions, l2 criterion (obs where named), round_to=1",
    )


if __name__ == "__main__":
    main()
