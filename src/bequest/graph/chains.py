"""From a group to the :class:`Unit` that methods read: a walk from producer to consumers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bequest.graph.functions import PASSABLE, Functions, ObstacleError, Path
from bequest.graph.groups import Channels, Group, Index
from bequest.graph.reading import Read, Write
from bequest.graph.rules.norms import epsilon
from bequest.graph.trace import place_of
from bequest.graph.units import Activation, BatchNorm, Consumer, Producer, Unit


@dataclass(frozen=True)
class Feed:
    """Where a consumer holds the group's channels.

    Index ``columns[i, t]`` of dimension ``read.dim`` is the t-th place of channel i; shape (n, t).
    """

    read: Read
    columns: Index


@dataclass(frozen=True)
class Bound:
    """A unit, and for each of its consumers where its numbers came from."""

    unit: Unit
    feeds: tuple[Feed, ...]


def bind(channels: Channels, group: Group, tensors: Mapping[str, Tensor]) -> Bound:
    """Reads a group's numbers from the dense network.

    Args:
        channels: the network's groups.
        group: one of them.
        tensors: qualified name → dense tensor.

    Returns:
        The unit, on the tensors' device. Where the group is no chain from one producer
        over norm and activation to layers, ``unit.obstacle`` says why and there are no feeds.
    """
    writes = [write for write in group.producers if write.weight is not None]
    producers = tuple(producer_of(channels, group, write, tensors) for write in writes)
    try:
        activation, feeds, consumers = _chain(channels, group, tensors)
        obstacle = None
    except ObstacleError as reason:
        activation, feeds, consumers, obstacle = None, (), (), str(reason)
    unit = Unit(group.name, group.size, producers, activation, consumers, obstacle)
    return Bound(unit, feeds)


def producer_of(
    channels: Channels, group: Group, write: Write, tensors: Mapping[str, Tensor]
) -> Producer:
    """Rows of one layer, in the order of the group's channels; channels it lacks have zero rows."""
    assert write.weight is not None
    rows = places(channels.positions(group, write.labels), group.size, short=True)
    weight = tensors[write.weight].detach().movedim(write.dim, 0).flatten(1)
    norm = norm_after(channels, write.node)
    return Producer(
        name=write.weight.removesuffix(".weight"),
        kind=write.kind,
        stored=_gather(weight, rows).flatten(1),
        bias=None if write.bias is None else _vector(tensors[write.bias], rows),
        norm=None if norm is None else _batch_norm(channels, norm, rows, tensors),
    )


def places(positions: Index, size: int, *, short: bool = False) -> Index:
    """Channel → its places: (n, t), from the channel of every index (−1: none of the group).

    Where channels have different numbers of places, missing ones are −1 (only if ``short``).
    """
    counts = np.bincount(positions[positions >= 0], minlength=size)
    if not short and (counts != counts[0]).any():
        raise ObstacleError("a consumer reads its channels in unequal numbers")
    places = np.full((size, int(counts.max(initial=1))), -1)
    order = np.argsort(positions, kind="stable")[int((positions < 0).sum()) :]
    within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    places[positions[order], within] = order
    return places


def _gather(tensor: Tensor, places: Index) -> Tensor:
    """tensor[places] with zeros at −1, (n, t, ...).

    No copy where that is the tensor itself, but of one in double precision: what methods are given
    in that would be the network's own memory.
    """
    if np.array_equal(places.flatten(), np.arange(len(tensor))):
        whole = tensor.clone() if tensor.dtype == torch.float64 else tensor
        return whole.view(*places.shape, *tensor.shape[1:])
    index = torch.from_numpy(places).to(tensor.device)
    gathered = tensor[index.clamp(min=0)]
    if (places < 0).any():
        gathered[index < 0] = 0
    return gathered


def _vector(tensor: Tensor, rows: Index) -> Tensor:
    """A number per channel, that of its first row, float64 (n,)."""
    return _gather(tensor.detach(), rows)[:, 0].double()


def norm_after(channels: Channels, node: fx.Node) -> fx.Node | None:
    """The batch norm that reads a node's value."""
    roles = channels.reading.roles
    return next((user for user in node.users if roles.get(user) == "norm"), None)


def _batch_norm(
    channels: Channels, norm: fx.Node, rows: Index, tensors: Mapping[str, Tensor]
) -> BatchNorm:
    names = channels.reading.network.tensors
    args: list[Any] = list(norm.args)

    def vector(position: int) -> Tensor | None:
        node = args[position] if position < len(args) else None
        return None if node is None else _vector(tensors[names[node.name]], rows)

    mean, var = vector(3), vector(4)
    assert mean is not None
    assert var is not None
    gamma, beta = vector(1), vector(2)
    return BatchNorm(
        gamma=torch.ones_like(mean) if gamma is None else gamma,
        beta=torch.zeros_like(mean) if beta is None else beta,
        mean=mean,
        var=var,
        eps=epsilon(norm),
    )


def _chain(
    channels: Channels, group: Group, tensors: Mapping[str, Tensor]
) -> tuple[Activation, tuple[Feed, ...], tuple[Consumer, ...]]:
    write = _only_producer(channels, group)
    functions = Functions(channels.reading)
    met = _walk(channels, group, write.node, functions)
    if not met:
        raise ObstacleError("no layer reads its channels")
    if len({(path.norm, path.function) for _, path in met}) > 1:
        raise ObstacleError("its consumers read it through different functions")
    found: dict[str, tuple[Feed, Consumer]] = {}
    for read, path in met:
        assert read.weight is not None
        found[read.weight] = consumed(channels, group, read, tensors, padded=path.padded)
    feeds, consumers = zip(*found.values(), strict=True)
    return functions.activation(met[0][1].function, tensors), feeds, consumers


def consumed(
    channels: Channels, group: Group, read: Read, tensors: Mapping[str, Tensor], *, padded: bool
) -> tuple[Feed, Consumer]:
    """A layer that reads a group, and where its numbers came from.

    Args:
        channels: the network's groups.
        group: one of them.
        read: what the layer reads.
        tensors: qualified name → dense tensor.
        padded: whether zeros were brought in before it.

    Raises:
        ObstacleError: its weight serves something else, too.
    """
    weight_name = readable(channels, read).weight
    assert weight_name is not None
    columns = places(channels.positions(group, read.labels), group.size)
    weight = tensors[weight_name].detach().movedim(read.dim, 0)
    read_of = _gather(weight, columns).movedim(2, 0).flatten(2)  # (o, n, t, ...) → (o, n, q)
    name = weight_name.removesuffix(".weight")
    return Feed(read, columns), Consumer(name, read_of, padded or read.zero_padded)


def _only_producer(channels: Channels, group: Group) -> Write:
    """The one layer, called once, that writes each of the channels once."""
    if group.kind == "residual":
        raise ObstacleError("several layers add to its channels (a residual stream)")
    if len(group.producers) != 1:
        raise ObstacleError("several layers write its channels")
    (write,) = group.producers
    if write.weight is None:
        raise ObstacleError("its weight is computed from other tensors")
    if sum(other.weight == write.weight for other in channels.reading.writes) > 1:
        raise ObstacleError(f"'{group.name}' is called more than once")
    if write.groups > 1:
        raise ObstacleError("a grouped convolution writes it: its filters read different inputs")
    if len(write.labels) != group.size:
        raise ObstacleError("some of its channels leave in bundles")
    return write


def _walk(
    channels: Channels, group: Group, start: fx.Node, functions: Functions
) -> list[tuple[Read, Path]]:
    """Every consumer that is reached from the producer, and what lies between."""
    reads = {read.node: read for read in group.consumers}
    roles = channels.reading.roles
    met: dict[fx.Node, tuple[Read, Path]] = {}
    paths = {start: Path()}
    for node in _behind(channels, start):
        read = {one: paths[one] for one in node.all_input_nodes if one in paths}
        if node in reads and roles[node] == "layer" and len(read) == 1:
            (path,) = read.values()
            met[node] = readable(channels, reads[node]), path
        else:
            paths[node] = functions.passed(node, read)
    return [met[read.node] for read in group.consumers if read.node in met]


def _behind(channels: Channels, start: fx.Node) -> list[fx.Node]:
    """What reads a node's value or what functions make of it, in order of execution."""
    roles = channels.reading.roles
    found, pending = {start}, [start]
    while pending:
        users = {one for one in pending.pop().users if _tells(one)} - found
        found |= users
        pending += [one for one in users if roles.get(one) in PASSABLE]
    return [node for node in channels.reading.network.nodes if node in found and node is not start]


def _tells(node: fx.Node) -> bool:
    """Whether something comes of a node; assertions make nothing."""
    return node.op == "output" or node.meta.get("val") is not None


def readable(channels: Channels, read: Read) -> Read:
    """What a layer reads, where its weight can take up what is handed on.

    Raises:
        ObstacleError: it is a grouped convolution's, a computed one, or serves twice.
    """
    if read.groups > 1:
        raise ObstacleError(f"a grouped convolution reads it ({place_of(read.node)})")
    if read.weight is None:
        raise ObstacleError(f"a computed weight reads it ({place_of(read.node)})")
    if any(
        write.weight == read.weight and write.node is not read.node and write.dim == read.dim
        for write in channels.reading.writes
    ):
        raise ObstacleError(f"the weight of {place_of(read.node)} serves twice")
    return read
