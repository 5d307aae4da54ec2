"""How much wider is the certified change than what inputs reach?

The ReLU MLP of the MNIST table, one layer or all of them pruned, against 6,000 sampled inputs:
held-out images, uniform noise, and random corners of the input range.
"""

from __future__ import annotations

import torch

import bequest
from benchmarks.record import record
from benchmarks.robust_subjects import mlp, mnist, trained

LAYERS = {"last": ("5",), "middle": ("3",), "first": ("1",), "all": ("1", "3", "5")}


def sampled() -> torch.Tensor:
    """Inputs in 0..1, (6000, 1, 28, 28)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4000, 1, 28, 28, generator=generator)
    noise[2000:] = noise[2000:].round()
    return torch.cat([mnist()[1][0], noise]).double()


def main() -> None:
    """Prints and records the table."""
    model = trained("mlp-relu", mlp, mnist, seed=0, epochs=20).double()
    x = sampled()
    rows: list[list[object]] = []
    with torch.no_grad():
        dense = model(x)
    for name, layers in LAYERS.items():
        for ratio in (1 / 64, 1 / 8, 1 / 2):
            pruned = bequest.robust.prune(
                model, x[:1], (0, 1), dict.fromkeys(layers, ratio), 1 / 64
            )
            lower, upper = pruned.report.certified_change
            with torch.no_grad():
                change = pruned.model(x) - dense
            reached = (change.amax(0) - change.amin(0)).mean().item()
            certified = (upper - lower).mean().item()
            inside = bool(((lower <= change) & (change <= upper)).all())
            quotient = certified / reached if reached > 1e-9 else "a dead unit left"
            rows.append([name, ratio, certified, reached, quotient, inside])
            print(*rows[-1], flush=True)
    record(
        "robust_bounds",
        rows,
        ["layer", "ratio", "certified width", "sampled width", "quotient", "all inside"],
        widths="of the interval of each output, mean over the ten outputs",
        spread_of_outputs=f"{(dense.amax(0) - dense.amin(0)).mean().item():.1f} over the samples",
        seed=0,
    )


if __name__ == "__main__":
    main()
