"""Are networks of timm and Hugging Face pruned as they are, how long does it take, is it exact?

24 networks of timm and 5 of transformers, no code for any of them. Weights are random: pruned at
50 % the networks must run, learn and reload to the same bits; and where duplicates and dead units
were planted and precisely those are pruned, the outputs must be the dense ones to 1e-4.

``python -m benchmarks.architectures [NAME ...]``; with names only these are tried and printed, and
nothing is written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import torch
from tests.architectures.examination import Exactness, Pruning, exactness, halve
from tests.architectures.networks import NAMES, subject

from benchmarks.record import record
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace

TOLERANCE = 1e-4
COLUMNS = (
    "network",
    "trace (s)",
    "group (s)",
    "prune (s)",
    "groups",
    "form",
    "params",
    "MACs",
    "runs, learns, reloads",
    "planted",
    "left",
    "change",
    "at stake",
    "channels that stayed",
)


def main() -> None:
    """Tries each network in turn."""
    rows: list[list[object]] = []
    failures: dict[str, str] = {}
    for name in sys.argv[1:] or NAMES:
        try:
            rows.append(_row(name))
            print(*rows[-1], flush=True)
        except Exception as error:  # a table of what works says also what doesn't
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            print(name, failures[name], flush=True)
    if not sys.argv[1:]:
        write(rows, failures)


def write(rows: list[list[object]], failures: dict[str, str]) -> None:
    """The table, and what it means."""
    record(
        "architectures",
        rows,
        COLUMNS,
        failures=failures or "none",
        ratio="0.5, groups all, round to 8, lbyl",
        params_and_MACs="kept, as a share",
        form="the network's own class, or a program: its traced operators",
        planted="a quarter of each group, half of it duplicates where lbyl hands on, else dead",
        left="of the planted units, with groups all and round_to 1",
        change=f"max |pruned - dense| / max |dense|, wanted < {TOLERANCE}",
        at_stake="the same, between before and after planting",
        threads=torch.get_num_threads(),
    )


def _row(name: str) -> list[object]:
    one = subject(name)
    model = one.trained()
    start = time.perf_counter()
    network = trace(model, one.example)
    traced = time.perf_counter()
    group(read(network))
    grouped = time.perf_counter()
    whole, planted = halve(one), exactness(one)
    return [
        name,
        *(round(s, 1) for s in (traced - start, grouped - traced, whole.seconds)),
        whole.groups,
        whole.form,
        *(round(share, 3) for share in (whole.params, whole.macs)),
        _works(whole),
        planted.dead + planted.duplicates,
        planted.pruned,
        f"{planted.change:.0e}{_verdict(planted)}",
        round(planted.effect, 2),
        _listed(whole.refused),
    ]


def _works(pruning: Pruning) -> str:
    failed = [name for name in ("runs", "learns", "reloads") if not getattr(pruning, name)]
    return f"NOT: {', '.join(failed)}" if failed else "yes"


def _verdict(planted: Exactness) -> str:
    if planted.strangers:
        return f" NOT PRECISE: {planted.strangers} others left"
    return "" if planted.change < TOLERANCE else " NOT EXACT"


def _listed(refused: Mapping[str, int]) -> str:
    return "; ".join(f"{count}: {reason}" for reason, count in refused.items())


if __name__ == "__main__":
    main()
