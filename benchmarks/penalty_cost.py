"""What share of a training step does the penalty take?

ResNet-20, batch 128 of 32 x 32 images, one thread: whole steps (forward, backward, SGD) with and
without the penalty in turn, and the penalty with its own backward pass alone. Medians, as other
work on the machine lengthens single steps.
"""

from __future__ import annotations

import statistics
import time
from typing import get_args

import torch
from torch.nn.functional import cross_entropy

import bequest
from benchmarks.record import record
from bequest.hypersphere import HypersphericalPenalty, convert
from bequest.hypersphere.penalty import Form

STEPS = 40
BATCH = 128


def main() -> None:
    """Times steps and writes results/penalty_cost.{json,md}."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    rows: list[list[object]] = []
    for mask in ("layer", "global"):
        for form in get_args(Form):
            model = convert(bequest.zoo.create("resnet20"))
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            penalty = HypersphericalPenalty(0.5, mask=mask, form=form)
            optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
            without, alone = [], []
            for step in range(STEPS):
                optimiser.zero_grad()
                start = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16):
                    output = model(x.contiguous(memory_format=torch.channels_last))
                cross_entropy(output.float(), y).backward()  # type: ignore[no-untyped-call]
                middle = time.perf_counter()
                penalty(model).backward()  # type: ignore[no-untyped-call]
                end = time.perf_counter()
                optimiser.step()
                if step >= STEPS // 4:
                    alone.append(end - middle)
                    without.append(time.perf_counter() - start - alone[-1])
            step_ms, penalty_ms = (1e3 * statistics.median(held) for held in (without, alone))
            mean_ms = 1e3 * statistics.fmean(alone)
            rows.append([mask, form, step_ms, penalty_ms, mean_ms, 100 * penalty_ms / step_ms])
    record(
        "penalty_cost",
        rows,
        ["mask", "form", "step without, ms", "penalty, ms", "mean, ms", "share, %"],
        network="resnet20, batch 128, bf16 autocast, channels-last, one thread",
        refresh="masks are ranked anew every 10 steps; the mean holds those steps too",
    )


if __name__ == "__main__":
    main()
