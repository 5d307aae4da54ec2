"""How much memory does pruning in weight space take over the model that is loaded?

    python -m benchmarks.weight_space_memory

Half of every inner group leaves, restored by ``lbyl``; random weights, images of 224 × 224, one
thread. Each network is measured in a process of its own that has pruned another one before, three
times, and the largest peak is reported: of resident memory, over what it was with the model made.
What numbers are freed and kept by the allocator counts, as it does for a user. Linux.
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import time
from pathlib import Path

import torch
from tests.timm_support import name_missing_operators
from torch import nn

import bequest
from benchmarks.record import record

NETWORKS = ("resnet50", "vgg16", "vit_base_patch16_224")
TIMES = 3


def main() -> None:
    """Starts the processes that are measured, and writes what they tell."""
    rows = []
    for name in NETWORKS:
        command = [sys.executable, "-m", "benchmarks.weight_space_memory", name]
        told = [subprocess.check_output(command, text=True).splitlines()[-1] for _ in range(TIMES)]
        runs = [tuple(map(float, line.split())) for line in told]
        size, peak, cpu = (max(column) for column in zip(*runs, strict=True))
        rows.append([name, size / 2**20, peak / 2**20, round(peak / size, 2), cpu])
        print(*rows[-1], flush=True)
    record(
        "weight_space_memory",
        rows,
        ["network", "model [MiB]", "peak over it [MiB]", "in models", "CPU [s]"],
        title="Peak resident memory of pruning by lbyl, largest of three processes",
        threads=1,
        must_hold="below 1.5 models",
        seed=0,
    )


def measured(name: str) -> None:
    """Prints bytes of the model, bytes of the peak over it, CPU seconds."""
    name_missing_operators()
    import timm

    torch.manual_seed(0)
    torch.set_num_threads(1)
    _pruned(timm.create_model("resnet18"), 64)
    model = timm.create_model(name).eval()
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    cpu = time.process_time()
    _pruned(model, 224)
    print(size, _resident("VmHWM") - before, time.process_time() - cpu)


def _pruned(model: nn.Module, side: int) -> None:
    bequest.prune(model.eval(), torch.zeros(1, 3, side, side), 0.5, restorer="lbyl", progress=False)


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


if __name__ == "__main__":
    measured(sys.argv[1]) if sys.argv[1:] else main()
