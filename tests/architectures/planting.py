"""Plants units that can leave without a trace, so that pruning a random network can be judged.

A *duplicate* computes what another unit of its group computes: a weight-space restorer hands it on
exactly. A *dead* unit is zero wherever it is written. Pruning precisely the planted units must
leave the outputs as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from bequest.criteria.base import Criterion
from bequest.graph.chains import bind
from bequest.graph.groups import Channels, Group
from bequest.graph.ledger import Layout
from bequest.graph.trace import named_tensors, operator_of
from bequest.graph.units import Unit

Positions = NDArray[np.int64]
_SHARE = 0.25
_REDUCED_DIMS = {"mean": 1, "var": 1, "var_mean": 1, "linalg_vector_norm": 2}
"""Reductions whose value depends on how many channels there are → where their dims stand."""
_NORMS = frozenset({"layer_norm", "native_layer_norm", "group_norm", "native_group_norm"})


@dataclass(frozen=True)
class Planted:
    """What was planted.

    Attributes:
        units: group's name → positions of its planted units, ascending.
        ratio: group's first layer → the share of its channels that was planted.
        dead: number of dead units.
        duplicates: number of duplicates.
    """

    units: dict[str, tuple[int, ...]]
    ratio: dict[str, float]
    dead: int
    duplicates: int


@dataclass(frozen=True)
class PlantedFirst(Criterion):
    """Ranks the planted units below all others."""

    name: ClassVar[str] = "planted"
    units: Mapping[str, tuple[int, ...]]

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        scores = torch.ones(unit.size, dtype=torch.float64)
        scores[list(self.units[unit.name])] = 0
        return scores


@torch.no_grad()
def plant(model: nn.Module, channels: Channels) -> Planted:
    """Plants units in every group that can lose some, in place.

    Groups that a weight-space restorer serves get duplicates and dead units by turns, others dead
    units alone; groups whose channels a norm or mean gathers get none, since every unit counts
    there.
    """
    tensors, places = named_tensors(model), _places(channels)
    units: dict[str, tuple[int, ...]] = {}
    shares: dict[str, float] = {}
    count = {"dead": 0, "duplicates": 0}
    for group in channels.groups:
        if group.is_output or not group.layers or _gathered(channels, group):
            continue
        restorable = bind(channels, group, tensors).unit.obstacle is None
        spared = np.zeros(group.size, bool)
        spared[[segment[0] for segment in group.segments]] = True  # each keeps a channel
        doomed: list[int] = []
        blocks = [members[~group.fixed[members] & ~spared[members]] for members in _blocks(group)]
        number = min(max(int(len(free) * _SHARE), min(1, len(free) // 2)) for free in blocks)
        for free in blocks:
            for turn, (victim, twin) in enumerate(
                zip(free[:number], free[number : 2 * number], strict=True)
            ):
                kind = "duplicates" if restorable and turn % 2 == 0 else "dead"
                _write(tensors, places, group, victim, twin if kind == "duplicates" else None)
                count[kind] += 1
            doomed += [int(position) for position in free[:number]]
        if doomed:
            units[group.name] = tuple(sorted(doomed))
            shares[group.layers[0]] = len(doomed) / group.free
    return Planted(units, shares, count["dead"], count["duplicates"])


def _blocks(group: Group) -> list[Positions]:
    if group.blocks is None:
        return [np.arange(group.size)]
    return [np.flatnonzero(group.blocks == block) for block in range(int(group.blocks.max()) + 1)]


def _gathered(channels: Channels, group: Group) -> bool:
    """True where an operator's value depends on how many of the group's channels there are."""
    inside = np.zeros(int(channels.channel_of.max(initial=0)) + 1, bool)
    inside[group.channels] = True
    for node in channels.reading.network.nodes:
        for labels in _gathered_labels(channels, node):
            if inside[channels.channel_of[labels]].any():
                return True
    return False


def _gathered_labels(channels: Channels, node: fx.Node) -> list[NDArray[np.int64]]:
    name = operator_of(node)
    if name not in _NORMS and name not in _REDUCED_DIMS:
        return []
    data = node.args[0]
    assert isinstance(data, fx.Node)
    layout = channels.reading.layouts[data]
    assert isinstance(layout, Layout)
    dims: Any = range(len(layout.dims))
    if name in _REDUCED_DIMS:
        position = _REDUCED_DIMS[name]
        given = node.args[position] if len(node.args) > position else None
        dims = given if isinstance(given, list) else dims
    return [labels for labels in (layout.dims[dim] for dim in dims) if labels is not None]


_Places = dict[int, list[tuple[str, int, Tensor]]]
"""Channel → the tensors that write or scale it: name, dimension, indices along it."""


def _places(channels: Channels) -> _Places:
    reading = channels.reading
    written = {(write.weight, write.dim) for write in reading.writes}
    read = {(one.weight, one.dim) for one in reading.reads}
    places: _Places = {}
    for (name, dim), labels in reading.ledger.slots.items():
        if (name, dim) in read and (name, dim) not in written:
            continue
        ids = channels.channel_of[labels]
        order = np.argsort(ids, kind="stable")
        starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
        for at in np.split(order, starts[1:]):
            places.setdefault(int(ids[at[0]]), []).append((name, dim, torch.from_numpy(at)))
    return places


def _write(
    tensors: Mapping[str, Tensor], places: _Places, group: Group, victim: int, twin: int | None
) -> None:
    """Makes a unit the copy of its twin, or zero, in every tensor that writes or scales it."""
    copied = (
        {}
        if twin is None
        else {(name, dim): at for name, dim, at in places.get(int(group.channels[twin]), [])}
    )
    for name, dim, at in places.get(int(group.channels[victim]), []):
        tensor = tensors[name]
        if twin is not None:
            tensor.index_copy_(dim, at, tensor.index_select(dim, copied[name, dim]))
        elif not name.endswith(("running_mean", "running_var")):
            tensor.index_fill_(dim, at, 0)
