"""Are networks of timm and Hugging Face pruned as they are, how long does it take, is it exact?

24 networks of timm and 5 of transformers, no code for any of them. Weights are random: pruned at
50 % the networks must run, learn and reload to the same bits; and where duplicates and dead units
were planted and precisely those are pruned, the outputs must be the dense ones to 1e-4.

``python -m benchmarks.architectures [NAME ...]``. Every row is kept in build/architectures.json as
soon as it is there: a run that was cut off goes on where it stopped, names measure these networks
anew, and the table is written once there is a row, or a failure of this run, for every network.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from tests.architectures.examination import Exactness, Pruning, exactness, halve
from tests.architectures.networks import NAMES, subject
from torch import nn

from benchmarks.record import record
from bequest.atomic import replacing
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace

ROWS = Path(__file__).parents[1] / "build" / "architectures.json"
TOLERANCE = 1e-4
COLUMNS = (
    "network",
    "trace (CPU s)",
    "trace (wall s)",
    "group (CPU s)",
    "prune (CPU s)",
    "prune (wall s)",
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

Row = list[object]


def main() -> None:
    """Tries each network in turn."""
    rows: dict[str, Row] = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    if set(NAMES) <= rows.keys() and not sys.argv[1:]:
        rows = {}  # the last run came to its end: this is another
    failures: dict[str, str] = {}
    trace(nn.Linear(1, 1), torch.zeros(1, 1))  # imports what tracing needs: no network's own time
    for name in sys.argv[1:] or [name for name in NAMES if name not in rows]:
        rows.pop(name, None)
        try:
            rows[name] = _row(name)
            print(*rows[name], flush=True)
        except Exception as error:  # a table of what works says also what doesn't
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            print(name, failures[name], flush=True)
        _keep(rows)
    missing = [name for name in NAMES if name not in rows.keys() | failures.keys()]
    if missing:
        print("no table yet; still to come:", *missing)
    else:
        write([rows[name] for name in NAMES if name in rows], failures)


def write(rows: list[Row], failures: dict[str, str]) -> None:
    """The table, and what it means."""
    record(
        "architectures",
        rows,
        COLUMNS,
        failures=failures or "none",
        ratio="0.5, groups all, round to 8, lbyl",
        seconds="CPU: of the processor, all threads; wall: on the clock, others' work included",
        params_and_MACs="kept, as a share",
        form="the network's own class, or a program: its traced operators",
        planted="a quarter of each group, half of it duplicates where lbyl hands on, else dead",
        left="of the planted units, with groups all and round_to 1",
        change=f"max |pruned - dense| / max |dense|, wanted < {TOLERANCE}",
        at_stake="the same, between before and after planting",
        threads=torch.get_num_threads(),
    )


def _keep(rows: Mapping[str, Row]) -> None:
    ROWS.parent.mkdir(exist_ok=True)
    with replacing(ROWS) as draft:
        draft.write_text(json.dumps(rows, indent=2) + "\n")


def _row(name: str) -> Row:
    one = subject(name)
    model = one.trained()
    wall, start = time.perf_counter(), time.process_time()
    network = trace(model, one.example)
    waited, traced = time.perf_counter(), time.process_time()
    group(read(network))
    grouped = time.process_time()
    seconds = traced - start, waited - wall, grouped - traced
    whole, planted = halve(one), exactness(one)
    return [
        name,
        *(round(s, 1) for s in (*seconds, whole.seconds, whole.wall)),
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
