"""This process, or as many others as this machine has idle cores and free memory for."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bequest.execution.memory import free_memory
from bequest.sweeping.engines.base import Engine, Setup
from bequest.sweeping.engines.embedded import Embedded
from bequest.sweeping.engines.processes import Processes
from bequest.sweeping.estimate import memory_of
from bequest.sweeping.network import Network


def local(workers: int | None, setup: Setup | None, networks: Sequence[Network]) -> Engine:
    """The engine of so many workers on this machine.

    Args:
        workers: None = as many as there are idle cores and memory for; 1 where a network is on a
            GPU.
        setup: what each process does first.
        networks: what they work on.
    """
    if workers is None:
        workers = 1 if any(one.on_gpu for one in networks) else idle_cores()
        if workers > 1 and (free := free_memory()) is not None:
            workers = min(workers, free // max(map(memory_of, networks)))
    return Processes(workers, setup) if workers > 1 else Embedded()


def idle_cores() -> int:
    """Cores that this process may use and that nobody else keeps busy, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    mine = len(affinity(0)) if affinity else os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, mine - round(busy))
