"""How much of a real ImageNet MobileNetV2 stays, without data and with 250 real pictures?

    python -m benchmarks.imagenet_agreement [made-up] [real] [RATIO ...] [SEED ...]

All inner groups lose 10, 20 and 30 % of their channels in the default call, over the images that it
makes up and over 250 real pictures; rows that aren't asked for stay as they were measured. The
network has no classifier: counted is the share of 250 pictures whose nearest picture, by the cosine
of features, among the dense features of another 250 is the same for the dense and the pruned
network. Settings were developed on every second picture from the first on; these are reported with
the two halves exchanged, medians of the seeds. The real pictures that are learnt from are those
that the nearest are sought among.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

import bequest
from benchmarks.mobilenetv2_imagenet import features, pictures
from benchmarks.record import record, renewed
from benchmarks.subjects import made_up
from bequest.calibration.samples import Samples
from bequest.restorers import Regression

RATIOS = (0.1, 0.2, 0.3)
KINDS = ("made-up", "real")
COLUMNS = (
    *("images", "ratio", "agreement [%]", "relative error of features"),
    *("range of agreement", "seeds", "CPU s"),
)


def main() -> None:
    """Measures the rows asked for and writes results/imagenet_agreement.{json,md}."""
    words = sys.argv[1:]
    seeds = [int(word) for word in words if word.isdigit()] or [0, 1, 2]
    ratios = [float(word) for word in words if "." in word] or list(RATIOS)
    kinds = [word for word in words if word in KINDS] or list(KINDS)
    model, images = features(), pictures(500)
    compared, judged = images[0::2], images[1::2]
    gallery, dense = (_features(model, half) for half in (compared, judged))
    example = torch.zeros(1, 3, 224, 224)
    real = Samples(tuple((chunk,) for chunk in torch.split(compared, 16)), real=True)
    for kind, ratio in product(kinds, ratios):
        found, seconds = list[tuple[float, float]](), list[float]()
        for seed in seeds:
            data, made_in = (
                (real, 0.0) if kind == "real" else made_up(Regression(), model, example, seed)
            )
            start = time.process_time()
            pruned = bequest.prune(model, example, ratio, data=data, seed=seed, round_to=1).model
            seconds.append(time.process_time() - start + made_in)
            found.append(_compared(dense, _features(pruned, judged), gallery))
        same, error = (list(each) for each in zip(*found, strict=True))
        medians = (round(statistics.median(same), 1), round(statistics.median(error), 3))
        spread = f"{min(same):.1f} to {max(same):.1f}"
        spent = round(statistics.median(seconds))
        row = [kind, ratio, *medians, spread, len(seeds), spent]
        record(
            "imagenet_agreement",
            renewed("imagenet_agreement", [row], key=2),
            COLUMNS,
            pictures="500 of ImageNet's, of different classes; developed on the even ones",
            pruned="all inner groups in the default call, round_to=1",
        )


@torch.no_grad()
def _features(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(chunk) for chunk in torch.split(images, 50)])


def _compared(dense: Tensor, pruned: Tensor, gallery: Tensor) -> tuple[float, float]:
    """Percent that agree, and ‖pruned − dense‖ / ‖dense − mean‖."""
    others = functional.normalize(gallery, dim=1).T
    first, second = (
        (functional.normalize(each, dim=1) @ others).argmax(1) for each in (dense, pruned)
    )
    error = (pruned - dense).norm() / (dense - dense.mean(0)).norm()
    return 100 * float((first == second).float().mean()), float(error)


if __name__ == "__main__":
    main()
