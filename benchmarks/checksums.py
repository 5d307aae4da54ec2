"""Is what pruning gives the same, bit by bit, as when results/checksums.json was recorded?

    python -m benchmarks.checksums                               # records, in some five minutes
    python -m benchmarks.checksums [NETWORK ...] --against FILE  # compares, records nothing

A cell is a network, a restorer, a criterion and a setting (:mod:`benchmarks.checksum_cells`). Of
each it is recorded what the saved folder holds (tensors; the plan without versions), what the
report says, and what the network computes as it is and as it is loaded again. A call that is
refused is recorded with its message. ``--against`` lists the cells that differ, and exits with 1
where there are any.

Bits are those of one kind of processor and one version of PyTorch, on one thread: to compare two
states of the code, run both on one machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import bequest
from benchmarks.checksum_cells import Subject, table
from benchmarks.record import record
from bequest import hypersphere

KEY = ["network", "restorer", "criterion", "setting"]
VALUES = ["outcome", "worst error", "tensors", "plan", "report", "outputs"]

Row = list[object]


def main() -> None:
    """Records, or compares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="compare these alone")
    parser.add_argument("--against", type=Path, metavar="FILE", help="what was recorded before")
    asked = parser.parse_args()
    if unknown := set(asked.networks) - table().keys():
        parser.error(f"no such network: {', '.join(sorted(unknown))}")
    if asked.networks and asked.against is None:
        parser.error("all networks are recorded, or none; to compare some, say --against FILE")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the report says the same
    if asked.against is None:
        write(measured(table()))
    elif compare(measured(asked.networks or table()), json.loads(asked.against.read_text())):
        sys.exit(1)


def write(rows: Sequence[Row]) -> None:
    """Records the rows in results/checksums.{json,md}."""
    record(
        "checksums",
        rows,
        [*KEY, *VALUES],
        title="What pruning gives, bit by bit",
        digests="the first 16 digits of SHA-256",
        outcome="form: channels that stay, of those of the groups that lose some",
        regression="Regression(images=32, inversion=1); regression-default: Regression()",
        seed=0,
        threads=torch.get_num_threads(),
    )


def measured(names: Iterable[str]) -> list[Row]:
    """The rows of some networks."""
    rows: list[Row] = []
    for name in names:
        one, cells, start = Subject.named(name), table()[name], time.process_time()
        for cell in cells:
            try:
                found = values(one, cell.work(one))
            except Exception as error:  # a refusal is a result like others
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                found = [text, None, "", "", "", ""]
            rows.append([name, cell.restorer, cell.criterion, cell.setting, *found])
        print(f"{name}: {len(cells)} cells, {time.process_time() - start:.1f} s", flush=True)
    return rows


def values(one: Subject, result: object) -> Row:
    """What is recorded of a result, in the order of :data:`VALUES`."""
    if isinstance(result, bequest.Pruned):
        groups = result.report.groups
        errors = [g.reconstruction_error for g in groups if g.reconstruction_error is not None]
        kept, size = sum(group.kept for group in groups), sum(group.size for group in groups)
        outcome = f"{result.plan.form}: {kept} of {size}"
        worst, report = max(errors, default=None), digest(result.report)
        with tempfile.TemporaryDirectory() as folder:
            result.save(folder)
            return [outcome, worst, *saved(folder), report, computed(one, result.model, folder)]
    if isinstance(result, nn.Module):
        with tempfile.TemporaryDirectory() as folder:
            hypersphere.save(folder, result)
            return ["sparse", None, *saved(folder), "", computed(one, result, folder)]
    return ["", None, "", "", digest(result), ""]


def saved(folder: str) -> tuple[str, str]:
    """Digests of the tensors and of the plan in a folder."""
    plan = json.loads((Path(folder) / "plan.json").read_text())
    del plan["versions"], plan["seal"]  # the seal is over the versions, too
    return digest(load_file(Path(folder) / "model.safetensors")), digest(plan)


@torch.no_grad()
def computed(one: Subject, model: nn.Module, folder: str) -> str:
    """A digest of the outputs of a network as it is, and as it is loaded."""
    loaded = bequest.load(folder, one.model)
    return digest([network.eval()(one.inputs()) for network in (model, loaded)])


def digest(value: object) -> str:
    """Of dtypes, shapes and bytes of tensors, names of fields, and everything else as written."""
    sha = hashlib.sha256()

    def feed(value: object) -> None:
        if isinstance(value, Tensor):
            sha.update(f"{value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif dataclasses.is_dataclass(value):
            feed({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        elif isinstance(value, Mapping):
            feed(sorted(value.items()))
        elif isinstance(value, list | tuple):
            sha.update(f"{len(value)}:".encode())
            for part in value:
                feed(part)
        else:
            sha.update(f"{value!r};".encode())

    feed(value)
    return sha.hexdigest()[:16]


def compare(rows: Sequence[Row], recorded: Mapping[str, Any]) -> int:
    """Prints the cells that are not as recorded, and returns how many they are."""
    names = {row[0] for row in rows}
    before = {
        tuple(row[name] for name in KEY): [row[name] for name in VALUES]
        for row in recorded["rows"]
        if row["network"] in names
    }
    after = {tuple(row[: len(KEY)]): row[len(KEY) :] for row in rows}
    differing = [key for key in before | after if before.get(key) != after.get(key)]
    for key in differing:
        print(*key, sep=" | ")
        old, new = (side.get(key, ["no such cell"] * len(VALUES)) for side in (before, after))
        for name, *pair in zip(VALUES, old, new, strict=True):
            if pair[0] != pair[1]:
                print(f"    {name}: {pair[0]} -> {pair[1]}")
    print(
        f"{len(differing)} of {len(before | after)} cells differ from what was recorded on", end=" "
    )
    print(f"{recorded['machine']} with {recorded['versions']}")
    return len(differing)


if __name__ == "__main__":
    main()
