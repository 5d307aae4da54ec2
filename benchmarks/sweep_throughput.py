"""Do two workers finish cells of equal cost in nearly half the time of one?

Sixteen prunings of a VGG-16 (CIFAR form, random weights) by `lbyl`, each measured on 512 images of
noise, one thread each: in one process, in two, and on Ray with two, from the first cell that is
journalled to the last, so that the start of workers is no part of it. Needs two idle cores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import bequest
from benchmarks.record import record
from bequest.sweeping import Images, Network
from bequest.sweeping.journal import Journal

CELLS, WANTED = 16, 1.7


def main() -> None:
    """Times the three and writes results/sweep_throughput.{json,md}."""
    torch.manual_seed(0)
    model = bequest.zoo.create("vgg16-cifar").eval()
    images = [(torch.randn(256, 3, 32, 32), torch.zeros(256, dtype=torch.int64)) for _ in range(2)]
    network = Network("vgg16-cifar", model, torch.zeros(1, 3, 32, 32), Images(images))
    ways: dict[str, dict[str, Any]] = {
        "one process": {"workers": 1},
        "two processes": {"workers": 2},
        "Ray, two workers": {"engine": "ray", "workers": 2},
    }
    rows: list[list[object]] = []
    alone = 0.0
    for name, options in ways.items():
        rate = _rate(network, options)
        alone = alone or rate
        rows.append([name, round(rate, 3), round(rate / alone, 2)])
        print(*rows[-1], flush=True)
    record(
        "sweep_throughput",
        rows,
        ["workers", "cells per second", f"times one (wanted {WANTED})"],
        cells=CELLS,
        threads="1 in each worker",
    )


def _rate(network: Network, options: dict[str, Any]) -> float:
    """Cells per second between the first and the last that are written down."""
    times: list[float] = []
    add = Journal.add

    def timed(journal: Journal, *cell: Any) -> None:
        times.append(time.perf_counter())
        add(journal, *cell)

    with (
        patch.object(Journal, "add", timed),
        tempfile.TemporaryDirectory() as folder,
    ):
        bequest.sweep(
            network,
            ratios=(0.5,),
            criteria=("random",),
            restorers=("lbyl",),
            seeds=range(CELLS),
            journal=Path(folder) / "journal",
            **options,
        )
    return (len(times) - 1) / (times[-1] - times[0])


if __name__ == "__main__":
    main()
