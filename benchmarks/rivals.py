"""What do the methods that others would pick keep, beside `regression`, without data?

Inner channels of every block by l1, at 0.3, 0.5 and 0.7, on the networks whose weights are there;
`folding` and `ifm` choose their own clusters, of as many channels. VGG-16 and MobileNetV2 are
trained by ``benchmarks.train_reference``, the latter with ``--transfer --epochs 5``. Measured on
CIFAR-10 test images 5,000 to 6,999. Needs the images in ``$BEQUEST_SHARED``.

    python -m benchmarks.rivals [NETWORK ...]    # these alone; rows of others stay as they are
"""

from __future__ import annotations

import json
import os
import sys

import torch

import bequest
from benchmarks.record import RESULTS, record, renewed, shared_folder
from benchmarks.subjects import subject
from benchmarks.train_reference import WEIGHTS
from bequest.sweeping import Images, Network

RATIOS = (0.3, 0.5, 0.7)
RESTORERS = ("none", "merge", "lbyl", "fusion", "ifm", "folding", "regression")
IMAGES = "CIFAR-10 test, 5,000 to 6,999"


def main() -> None:
    """Sweeps, and writes results/rivals.{json,md}."""
    files = {
        "resnet56": shared_folder() / "weights/resnet56_cifar10.safetensors",
        "vgg16-cifar": WEIGHTS / "vgg16-cifar.safetensors",
        "mobilenetv2-cifar": WEIGHTS / "mobilenetv2-cifar.safetensors",
    }
    networks, skipped = [], {}
    asked = sys.argv[1:] or list(files)
    if unknown := set(asked) - set(files):
        sys.exit(f"expected networks out of {', '.join(files)}; found {', '.join(unknown)}")
    for name, file in files.items():
        if name not in asked:
            continue
        if not file.exists():
            skipped[name] = f"no weights at {file.name}: run benchmarks.train_reference"
            continue
        model, entry, images = subject(name, file, "cifar10/test.npz", offset=5000, limit=2000)
        example = torch.zeros(1, *entry.input_shape)
        networks.append(Network(name, model, example, Images(images, IMAGES)))
    found = bequest.sweep(
        networks,
        ratios=RATIOS,
        criteria=("l1",),
        restorers=RESTORERS,
        round_to=1,
        journal=os.environ.get("BEQUEST_JOURNAL"),
    )
    before = json.loads((RESULTS / "rivals.json").read_text())
    measured = {one.model: f"{one.model} {one.accuracy.top1:.2f}" for one in found.comparisons}
    told = [one for one in before["dense"].split(", ") if one.split()[0] not in measured]
    rows: list[list[object]] = []
    for one in found.comparisons:
        for ratio in RATIOS:
            top1 = [one.median("l1", name, ratio) for name in RESTORERS]
            rows.append([one.model, ratio, *("failed" if x is None else x for x in top1)])
    record(
        "rivals",
        renewed("rivals", rows, key=2),
        ["network", "ratio", *RESTORERS],
        dense=", ".join([*told, *measured.values()]),
        images=IMAGES,
        criterion="l1",
        pruned="inner channels, round_to=1",
        seed=0,
        skipped=skipped or "none",
    )


if __name__ == "__main__":
    main()
