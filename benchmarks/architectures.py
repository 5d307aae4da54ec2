"""Are the networks that people bring pruned as they are, how long does it take, is it exact?

Networks of timm, torchvision, transformers, diffusers and segmentation_models_pytorch, and a few of
our own: no code for any of them. Weights are random: pruned at 50 % the networks must run, learn,
reload to the same bits and be what the dense ones are without the channels; and where duplicates
and dead units were planted and precisely those are pruned, the outputs must be the dense ones to
1e-4.

``python -m benchmarks.architectures [NAME ...]``. Every row is kept in build/architectures.json as
soon as it is there: a run that was cut off goes on where it stopped, and names measure these
networks anew. At the end the table is written with all rows there are; networks that are not yet
measured, or whose library is absent, are listed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tests.architectures.examination import (
    Exactness,
    Pruning,
    exactness,
    exported,
    halve,
)
from tests.architectures.networks import NAMES, library_of, subject
from torch import nn

from benchmarks.record import record
from bequest.atomic import replacing
from bequest.graph.trace import trace

ROWS = Path(__file__).parents[1] / "build" / "architectures.json"
TOLERANCE = 1e-4
LIMIT = 0.35
CLASSES = "a thousand classes, which stay, hold much of it"
REASONS = {
    "tv-shufflenet_v2": CLASSES,
    "mixnet_s": CLASSES,
    "ghostnet_100": CLASSES,
    "efficientvit_b0": f"{CLASSES}; and heads of several scales go through one grouped convolution",
    "hf-convbert": "its attention computes convolution kernels, a number for each head and place",
    "hf-fnet": "Fourier transforms mix all channels of its stream",
    "eca_nfnet_l0": "convolutions slide over the channels (efficient channel attention)",
    "hf-detr": "an encoder-decoder whose stream meets positions that its code computes",
}
"""Network → why more than LIMIT of its parameters are left."""
COLUMNS = (
    "network",
    "library",
    "params (M)",
    "params left",
    "at least",
    "MACs left",
    "planning (CPU s)",
    "groups",
    "served by chains",
    "served by lbyl",
    "form",
    "runs, learns, reloads",
    "masked = cut",
    "planted",
    "left",
    "change",
    "at stake",
    "ONNX",
    "channels that stayed",
)

Row = list[Any]


def main() -> None:
    """Tries each network in turn."""
    warnings.simplefilter("ignore")
    rows: dict[str, Row] = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    failures: dict[str, str] = {}
    trace(nn.Linear(1, 1), torch.zeros(1, 1))  # imports what tracing needs: no network's own time
    for name in sys.argv[1:] or [name for name in NAMES if name not in rows]:
        rows.pop(name, None)
        library = library_of(name)
        if importlib.util.find_spec(library) is None:
            failures[name] = f"skipped, as {library} is not installed"
            continue
        try:
            rows[name] = _row(name)
            print(*rows[name], flush=True)
        except Exception as error:  # a table of what works says also what doesn't
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            print(name, failures[name], flush=True)
        _keep(rows)
    write([rows[name] for name in NAMES if name in rows], failures)


def write(rows: list[Row], failures: dict[str, str]) -> None:
    """The table, and what it means."""
    at = {column: place for place, column in enumerate(COLUMNS)}

    def total(column: str) -> int:
        return sum(int(row[at[column]]) for row in rows)

    record(
        "architectures",
        rows,
        COLUMNS,
        networks=len(rows),
        failures=failures or "none",
        not_measured=", ".join(sorted(set(NAMES) - {row[0] for row in rows})) or "none",
        groups_served=f"{total('served by lbyl')} of {total('groups')}; over chains alone "
        f"{total('served by chains')}",
        more_than_35_percent_left=", ".join(
            f"{row[0]} {row[at['params left']]} ({REASONS.get(row[0], 'unexplained')})"
            for row in rows
            if row[at["params left"]] > LIMIT
        ),
        slowest_planning=", ".join(
            f"{row[0]} {row[at['planning (CPU s)']]} s"
            for row in sorted(rows, key=lambda row: -row[at["planning (CPU s)"]])[:3]
        ),
        ratio="0.5, groups all, round to 8, nothing restored; planted units by lbyl",
        planning="CPU seconds of bequest.prune with the restorer none: trace, group, try out, cut, "
        "compare",
        params_and_MACs="kept, as a share",
        at_least="parameters left if every channel could leave by half: what classes and tables of "
        "rows hold stays",
        served="groups that lbyl hands on: over a chain of layer, norm, activation and layer, or "
        "else by what their channels say to noise",
        form="the network's own class, or a program: its traced operators",
        masked_is_cut="outputs compared with those of the dense network, removed channels zero",
        planted="a quarter of each group, half of it duplicates where a chain is, else dead",
        left="of the planted units, with groups all and round_to 1",
        change=f"max |pruned - dense| / max |dense|, wanted < {TOLERANCE}",
        at_stake="the same, between before and after planting",
        ONNX="max |onnxruntime - PyTorch| / max(1, max |PyTorch|) on the pruned network",
        threads=torch.get_num_threads(),
    )


def _keep(rows: Mapping[str, Row]) -> None:
    ROWS.parent.mkdir(exist_ok=True)
    with replacing(ROWS) as draft:
        draft.write_text(json.dumps(rows, indent=2) + "\n")


def _row(name: str) -> Row:
    one = subject(name)
    whole = halve(one, restorer="none")
    planted = exactness(one)
    handed = planted.served
    return [
        name,
        library_of(name),
        round(sum(parameter.numel() for parameter in one.build().parameters()) / 1e6, 2),
        *(round(share, 3) for share in (whole.params, planted.least, whole.macs)),
        round(whole.seconds, 1),
        handed.groups,
        handed.chains,
        handed.all,
        whole.form,
        _works(whole),
        f"NOT: {whole.compared}" if whole.compared else "yes",
        planted.dead + planted.duplicates,
        planted.pruned,
        f"{planted.change:.0e}{_verdict(planted)}",
        round(planted.effect, 2),
        exported(whole, one),
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
