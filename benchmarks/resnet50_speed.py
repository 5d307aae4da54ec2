"""How long, and with how much memory, is ResNet-50 (25 M parameters) traced, grouped and pruned?

Restored by ``lbyl``, ratio 0.5, on two threads; random weights, since time does not depend on them.
Memory is the growth of the process's peak over what it was with the model loaded.
"""

from __future__ import annotations

import resource
import time

import torch

import bequest
from benchmarks.record import record
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace

SEED = 0


def main() -> None:
    """Measures once, cold, as a user meets it."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    model = bequest.zoo.create("resnet50").eval()
    example = torch.zeros(1, 3, 224, 224)
    size = sum(tensor.nbytes for tensor in model.state_dict().values()) / 2**20
    loaded = _peak()
    start = time.perf_counter()
    group(read(trace(model, example)))
    planned = time.perf_counter() - start
    start = time.perf_counter()
    pruned = bequest.prune(model, example, 0.5, restorer="lbyl", progress=False)
    whole = time.perf_counter() - start
    grown = _peak() - loaded
    rows: list[list[object]] = [
        ["trace and group, first call (s)", round(planned, 2), "< 5"],
        ["trace, group, prune, restore (s)", round(whole, 2), "< 10"],
        ["peak memory over the loaded model (MiB)", round(grown), f"< {round(4 * size)}"],
        ["the same, in models", round(grown / size, 2), "< 4"],
        ["parameters kept", round(pruned.report.after.params / pruned.report.before.params, 3), ""],
    ]
    record("resnet50_speed", rows, ["what", "measured", "wanted"], seed=SEED, threads=2)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
