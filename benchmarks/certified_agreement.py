"""For how many images do the dense and the pruned network provably answer the same?

Certified agreement of the MLP of the MNIST table and the CNN of the CIFAR-10 table, pruned in four
ways, over all images in a box around held-out ones: medians over five networks of each.

``python -m benchmarks.certified_agreement`` (``mlp``, ``cnn``: one of them alone; rows of the other
stay as they were measured).
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from dataclasses import replace

from benchmarks.certificates import SUBJECTS, pruned
from benchmarks.record import record, renewed
from benchmarks.robust_runs import SEEDS
from benchmarks.robust_subjects import trained
from bequest.robust import certify

IMAGES = {"mlp": 60, "cnn": 2}
SIZES = {"mlp": (0.01,), "cnn": (0.01, 0.0005)}
RATIOS = {"mlp": (0.125, 0.5), "cnn": (0.5,)}


def main(names: list[str]) -> None:
    """Prints and records the table."""
    found = defaultdict(list)
    for name in names or SUBJECTS:
        of = replace(SUBJECTS[name], images=IMAGES[name])
        x = of.data()[1][0][: of.images].double()
        for seed in SEEDS:
            model = trained(f"{name}-relu", of.make, of.data, seed=seed, epochs=of.epochs).double()
            for ratio in RATIOS[name]:
                for restorer, network in pruned(model, x[:1], of.layers, ratio):
                    for eps in SIZES[name]:
                        proven = certify(model, network.double(), x, eps)
                        width = float((proven.upper - proven.lower).mean())
                        key = name, restorer, ratio, eps
                        found[key].append((100 * (proven.agreement or 0), width))
                        print(seed, *key, *found[key][-1], flush=True)
    rows = []
    for key, runs in found.items():
        shares, widths = zip(*runs, strict=True)
        spread = f"{min(shares):.1f} to {max(shares):.1f}"
        middle = round(statistics.median(shares), 1)
        rows.append([*key, len(runs), middle, spread, round(statistics.median(widths), 4)])
    record(
        "certified_agreement",
        renewed("certified_agreement", rows, key=4),
        [
            *("network", "method", "ratio", "eps", "networks", "certified agreement, %", "range"),
            "certified width",
        ],
        cells="median over networks of each kind, of the seeds from 0 on",
        images="the first held-out ones, 60 (mlp) and 2 (cnn); eps in pixels of 0..1",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
