"""How much memory does a walk over ResNet-50 at 224×224 take?

    python -m benchmarks.walk_memory

256 images, half of the inner channels of every block pruned. The peak of the process is taken from
a fresh one that has imported the library, built the network and pruned it without a walk.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch

import bequest
from benchmarks.record import record
from bequest.calibration import spill
from bequest.restorers import Regression

LIMIT = 2 * 2**30
"""Bytes of values in memory, whatever the machine has."""


def main() -> None:
    """Starts the process that is measured, and writes what it tells."""
    command = [sys.executable, "-m", "benchmarks.walk_memory", "measured"]
    before, peak, cpu, wall = map(float, subprocess.check_output(command, text=True).split())
    record(
        "walk_memory",
        [[256, LIMIT / 2**30, before / 2**20, peak / 2**20, cpu, wall]],
        ["images", "limit of values [GiB]", "before the walk [GiB]", "peak [GiB]", "CPU [s]", "s"],
        title="Peak resident memory of a walk over ResNet-50, images of 224 by 224",
        threads=torch.get_num_threads(),
        must_hold="peak ≤ 4 GiB",
        seed=0,
    )


def measured() -> None:
    """Prints resident KiB before and at the peak, CPU seconds and seconds."""
    torch.manual_seed(0)
    spill.limit_on = lambda device: LIMIT
    model, x = bequest.zoo.create("resnet50").eval(), torch.zeros(1, 3, 224, 224)
    bequest.prune(model, x, 0.5, restorer="none")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    restorer = Regression(images=256, inversion=0)
    bequest.prune(model, x, 0.5, criterion="l2", restorer=restorer, progress=False)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *spent)


if __name__ == "__main__":
    measured() if sys.argv[1:] == ["measured"] else main()
