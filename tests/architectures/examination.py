"""What is asked of every architecture: it is pruned, runs, learns, reloads, and loses nothing dead.

Each examination is a function of a subject; tests assert on what it returns, and the benchmark
writes it down.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import bequest
from bequest.graph.groups import group
from bequest.graph.rules import read
from bequest.graph.trace import trace
from tests.architectures.networks import Subject, outputs
from tests.architectures.planting import PlantedFirst, plant

_MODULE = re.compile(r" in '[^']*'")


@dataclass(frozen=True)
class Pruning:
    """A network at half of its widths.

    Attributes:
        seconds: of the processor, for the whole of ``bequest.prune``.
        wall: seconds on the clock for the same.
        groups: number of groups that lost channels.
        form: "module" or "program": what runs the pruned network.
        params: parameters kept, as a share.
        macs: multiply-accumulates kept, as a share.
        refused: reasons why groups stayed, without names of modules, each with the number of
            channels.
        runs: the outputs have the dense shape and are finite.
        learns: every parameter that has a gradient in the dense network has one, not all zero.
        reloads: saved and loaded onto a fresh instance, the outputs are the same bits.
    """

    seconds: float
    wall: float
    groups: int
    form: str
    params: float
    macs: float
    refused: dict[str, int]
    runs: bool
    learns: bool
    reloads: bool


def halve(subject: Subject) -> Pruning:
    """Prunes at 50 % with ``lbyl`` and looks at what comes out."""
    model = subject.trained()
    wall, start = time.perf_counter(), time.process_time()
    pruned = bequest.prune(
        model, subject.example, 0.5, groups="all", restorer="lbyl", progress=False
    )
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    refused: Counter[str] = Counter()
    for refusal in pruned.plan.refused:
        refused[_MODULE.sub("", refusal.reason)] += refusal.size
    report = pruned.report
    with torch.no_grad():
        dense, slim = (outputs(one, subject.example) for one in (model, pruned.model))
    return Pruning(
        seconds=seconds,
        wall=wall,
        groups=len(report.groups),
        form=pruned.plan.form,
        params=report.after.params / report.before.params,
        macs=report.after.macs / report.before.macs,
        refused=dict(refused),
        runs=slim.shape == dense.shape and bool(slim.isfinite().all()),
        learns=_learns(model, subject) <= _learns(pruned.model, subject),
        reloads=_reloads(pruned, subject),
    )


def _learns(model: nn.Module, subject: Subject) -> set[str]:
    """Names of the parameters that get a gradient other than zero."""
    model.zero_grad()
    outputs(model, subject.example).square().mean().backward()
    named = model.named_parameters()
    return {name for name, one in named if one.grad is not None and bool(one.grad.any())}


def _reloads(pruned: bequest.Pruned, subject: Subject) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        pruned.save(out)
        loaded = bequest.load(out, subject.build().eval())
    with torch.no_grad():
        return torch.equal(outputs(loaded, subject.example), outputs(pruned.model, subject.example))


@dataclass(frozen=True)
class Exactness:
    """What remained of the outputs when precisely the planted units left.

    Attributes:
        duplicates: number of planted units that are copies of others.
        dead: number of planted units that are zero.
        pruned: number of planted units that left; others stand in groups that were refused.
        strangers: number of units that left although they were not planted.
        change: max |pruned − dense| / max |dense|.
        effect: the same between the network before and after planting: what was at stake.
    """

    duplicates: int
    dead: int
    pruned: int
    strangers: int
    change: float
    effect: float


def exactness(subject: Subject) -> Exactness:
    """Plants duplicates and dead units, prunes them, and compares the outputs."""
    model = subject.trained()
    channels = group(read(trace(model, subject.example)))
    with torch.no_grad():
        before = outputs(model, subject.example)
        planted = plant(model, channels)
        dense = outputs(model, subject.example)
    pruned = bequest.prune(
        model,
        subject.example,
        planted.ratio,
        groups="all",
        criterion=PlantedFirst(planted.units),
        restorer="lbyl",
        round_to=1,
        progress=False,
    )
    with torch.no_grad():
        slim = outputs(pruned.model, subject.example)
    gone = {one.name: set(one.removed) for one in pruned.plan.groups}
    scale = dense.abs().max()
    return Exactness(
        duplicates=planted.duplicates,
        dead=planted.dead,
        pruned=sum(len(removed & set(planted.units[name])) for name, removed in gone.items()),
        strangers=sum(len(removed - set(planted.units[name])) for name, removed in gone.items()),
        change=float((slim - dense).abs().max() / scale),
        effect=float((dense - before).abs().max() / scale),
    )
