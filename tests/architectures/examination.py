"""What is asked of every architecture: it is pruned, runs, learns, reloads, and loses nothing dead.

Each examination is a function of a subject; tests assert on what it returns, and the benchmark
writes it down.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import bequest
from bequest.execution.copies import private_copy
from bequest.execution.reparametrised import as_stored
from bequest.graph.chains import bind
from bequest.graph.embedding import obstacle_to
from bequest.graph.groups import Channels, group
from bequest.graph.results import counting
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.surgery.folding import folded
from tests.architectures.planting import PlantedFirst, plant
from tests.architectures.subject import Subject, outputs

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
        compared: why the outputs were not compared with those of the dense network whose removed
            channels are zero; "" = they were, and are the same.
        model: the pruned network.
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
    compared: str
    model: nn.Module


def halve(subject: Subject, restorer: str = "lbyl") -> Pruning:
    """Prunes at 50 % and looks at what comes out."""
    model = subject.trained()
    wall, start = time.perf_counter(), time.process_time()
    pruned = bequest.prune(
        model,
        subject.example,
        0.5,
        groups="all",
        restorer=restorer,
        outputs=subject.results,
        progress=False,
    )
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    refused: Counter[str] = Counter()
    for refusal in pruned.plan.refused:
        refused[_MODULE.sub("", refusal.reason)] += refusal.size
    report = pruned.report
    with torch.no_grad():
        dense, slim = (outputs(one, subject) for one in (model, pruned.model))
    return Pruning(
        seconds=seconds,
        wall=wall,
        groups=len(report.groups),
        form=pruned.plan.form,
        params=report.after.params / report.before.params,
        macs=report.after.macs / report.before.macs,
        refused=dict(refused),
        runs=slim.shape == dense.shape and bool(slim.isfinite().all()),
        learns=_learning(model, pruned.model, subject),
        reloads=_reloads(pruned, subject),
        compared="; ".join(one for one in report.notes if "not compared" in one),
        model=pruned.model,
    )


def _learning(model: nn.Module, pruned: nn.Module, subject: Subject) -> bool:
    """Whether every parameter learns that does in the dense network, or that was computed there."""
    learned, learning = _learns(model, subject), _learns(pruned, subject)
    dense = dict(model.named_parameters())
    return all(
        name in learning
        for name, _ in pruned.named_parameters()
        if (name in learned if name in dense else _owner(name) in map(_owner, learned))
    )


def _owner(name: str) -> str:
    """The module that a parameter belongs to, also where it is computed from others there."""
    owner, computed, _ = name.partition(".parametrizations.")
    return owner if computed else name.rpartition(".")[0]


def _learns(model: nn.Module, subject: Subject) -> set[str]:
    """Names of the parameters that get a gradient other than zero."""
    model.zero_grad()
    outputs(model, subject).square().mean().backward()
    named = model.named_parameters()
    return {name for name, one in named if one.grad is not None and bool(one.grad.any())}


def _reloads(pruned: bequest.Pruned, subject: Subject) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        pruned.save(out)
        loaded = bequest.load(out, subject.build().eval())
    with torch.no_grad():
        return torch.equal(outputs(loaded, subject), outputs(pruned.model, subject))


@dataclass(frozen=True)
class Served:
    """Who restorers in weight space serve.

    Attributes:
        groups: number of groups that can lose channels.
        chains: those of them that a layer writes and, over a norm and an activation, layers read.
        all: those and the ones that are served by what they say to noise.
    """

    groups: int
    chains: int
    all: int


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
        served: who could be handed on.
        least: parameters left, as a share, if every channel that is no result could leave by half.
    """

    duplicates: int
    dead: int
    pruned: int
    strangers: int
    change: float
    effect: float
    served: Served
    least: float


def exactness(subject: Subject) -> Exactness:
    """Plants duplicates and dead units, prunes them, and compares the outputs."""
    model, channels = _as_pruned(subject)
    handed_on, least = _served(model, channels), _least(model, channels)
    with torch.no_grad():
        before = outputs(model, subject)
        planted = plant(model, channels)
        dense = outputs(model, subject)
    pruned = bequest.prune(
        model,
        subject.example,
        planted.ratio,
        groups="all",
        criterion=PlantedFirst(planted.units),
        restorer="lbyl",
        outputs=subject.results,
        round_to=1,
        progress=False,
    )
    with torch.no_grad():
        slim = outputs(pruned.model, subject)
    gone = {one.name: set(one.removed) for one in pruned.plan.groups}
    scale = dense.abs().max()
    return Exactness(
        duplicates=planted.duplicates,
        dead=planted.dead,
        pruned=sum(len(removed & set(planted.units[name])) for name, removed in gone.items()),
        strangers=sum(len(removed - set(planted.units[name])) for name, removed in gone.items()),
        change=float((slim - dense).abs().max() / scale),
        effect=float((dense - before).abs().max() / scale),
        served=handed_on,
        least=least,
    )


def _least(model: nn.Module, channels: Channels) -> float:
    """Half of every dimension along which channels lie; results, kernels, tables stay whole."""
    halved = np.zeros(int(channels.channel_of.max(initial=0)) + 1)
    for one in channels.groups:
        if not one.is_output:
            halved[one.channels] = 0.5
    slots = channels.reading.ledger.slots
    left = whole = 0.0
    for name, parameter in model.named_parameters():
        shares = [
            1 - halved[channels.channel_of[slots[name, dim]]].mean()
            for dim in range(parameter.ndim)
            if (name, dim) in slots
        ]
        left, whole = left + parameter.numel() * math.prod(shares), whole + parameter.numel()
    return left / whole


def _as_pruned(subject: Subject) -> tuple[nn.Module, Channels]:
    """The network whose weights pruning reads, computed ones as they are stored; and its groups."""
    model, _ = as_stored(subject.trained())
    channels = _grouped(model, subject)
    model, computed = folded(model, private_copy(model), subject.example, channels)
    return model, _grouped(model, subject) if computed else channels


def _grouped(model: nn.Module, subject: Subject) -> Channels:
    return group(counting(read(trace(model, subject.example)), subject.results))


def _served(model: nn.Module, channels: Channels) -> Served:
    """Counts the groups that ``lbyl`` hands on, and those that it prunes plainly."""
    tensors = named_tensors(model)
    free = [one for one in channels.groups if not one.is_output and one.free > 1]
    chained = [bind(channels, one, tensors).unit.obstacle is None for one in free]
    spoken = [
        obstacle_to(channels, one) is None
        for one, direct in zip(free, chained, strict=True)
        if not direct
    ]
    return Served(len(free), sum(chained), sum(chained) + sum(spoken))


def exported(pruning: Pruning, subject: Subject) -> str:
    """How far onnxruntime is from PyTorch on the pruned network, or why there is no file."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            distance = bequest.export(pruning.model, subject.example, Path(folder) / "pruned.onnx")
        except Exception as error:  # the exporter's own, of many classes
            return f"no: {str(error).splitlines()[0][:160]}"
    return f"{distance:.0e}"
