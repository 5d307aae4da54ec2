"""From a group to the :class:`Unit` that methods read: a walk from producer to consumers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bequest.graph.groups import Channels, Group, Index
from bequest.graph.rules import Read, Write
from bequest.graph.rules.elementwise import is_homogeneous
from bequest.graph.rules.norms import epsilon
from bequest.graph.trace import operator_of, place_of
from bequest.graph.units import Activation, BatchNorm, Consumer, Producer, Unit

IDENTITY = Activation("identity", lambda x: x, homogeneous=True)


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


@dataclass(frozen=True)
class _State:
    """What lies between the producer and a node: the norm, the functions, padding with zeros."""

    norm: fx.Node | None = None
    functions: tuple[fx.Node, ...] = ()
    padded: bool = False

    def signature(self) -> tuple[object, ...]:
        """Equal for two paths that compute the same."""
        return self.norm, *((str(f.target), str(f.args[1:]), str(f.kwargs)) for f in self.functions)


class _ObstacleError(Exception):
    """Why a group is no restorable unit."""


def bind(channels: Channels, group: Group, tensors: Mapping[str, Tensor]) -> Bound:
    """Reads a group's numbers from the dense network.

    Args:
        channels: the network's groups.
        group: one of them.
        tensors: qualified name → dense tensor.

    Returns:
        The unit, in float64 on the tensors' device. Where the group is no chain from one producer
        over norm and activation to layers, ``unit.obstacle`` says why and there are no feeds.
    """
    writes = [write for write in group.producers if write.weight is not None]
    producers = tuple(_producer(channels, group, write, tensors) for write in writes)
    try:
        activation, feeds, consumers = _chain(channels, group, tensors)
        obstacle = None
    except _ObstacleError as reason:
        activation, feeds, consumers, obstacle = None, (), (), str(reason)
    unit = Unit(group.name, group.size, producers, activation, consumers, obstacle)
    return Bound(unit, feeds)


def _producer(
    channels: Channels, group: Group, write: Write, tensors: Mapping[str, Tensor]
) -> Producer:
    """Rows of one layer, in the order of the group's channels; channels it lacks have zero rows."""
    assert write.weight is not None
    rows = _places(channels.positions(group, write.labels), group.size, short=True)
    weight = tensors[write.weight].detach().movedim(write.dim, 0).flatten(1)
    norm = _norm_after(channels, write.node)
    return Producer(
        name=write.weight.removesuffix(".weight"),
        kind=write.kind,
        weight=_gather(weight, rows).flatten(1),
        bias=None if write.bias is None else _gather(tensors[write.bias].detach(), rows)[:, 0],
        norm=None if norm is None else _batch_norm(channels, norm, rows, tensors),
    )


def _places(positions: Index, size: int, *, short: bool = False) -> Index:
    """Channel → its places: (n, t), from the channel of every index (−1: none of the group).

    Where channels have different numbers of places, missing ones are −1 (only if ``short``).
    """
    counts = np.bincount(positions[positions >= 0], minlength=size)
    if not short and (counts != counts[0]).any():
        raise _ObstacleError("a consumer reads its channels in unequal numbers")
    places = np.full((size, int(counts.max(initial=1))), -1)
    order = np.argsort(positions, kind="stable")[int((positions < 0).sum()) :]
    within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    places[positions[order], within] = order
    return places


def _gather(tensor: Tensor, places: Index) -> Tensor:
    """tensor[places] in float64 with zeros at −1; (n, t, ...)."""
    index = torch.from_numpy(places).to(tensor.device)
    gathered = tensor[index.clamp(min=0)].double()
    if (places < 0).any():
        gathered[index < 0] = 0
    return gathered


def _norm_after(channels: Channels, node: fx.Node) -> fx.Node | None:
    roles = channels.reading.roles
    return next((user for user in node.users if roles.get(user) == "norm"), None)


def _batch_norm(
    channels: Channels, norm: fx.Node, rows: Index, tensors: Mapping[str, Tensor]
) -> BatchNorm:
    names = channels.reading.network.tensors
    args: list[Any] = list(norm.args)

    def vector(position: int) -> Tensor | None:
        node = args[position] if position < len(args) else None
        return None if node is None else _gather(tensors[names[node.name]].detach(), rows)[:, 0]

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
    met = _walk(channels, group, write.node)
    if not met:
        raise _ObstacleError("no layer reads its channels")
    states = [state for _, state in met]
    if len({state.signature() for state in states}) > 1:
        raise _ObstacleError("its consumers read it through different functions")
    found: dict[str, tuple[Feed, Consumer]] = {}
    for read, state in met:
        assert read.weight is not None
        columns = _places(channels.positions(group, read.labels), group.size)
        weight = tensors[read.weight].detach().movedim(read.dim, 1)
        index = torch.from_numpy(columns).flatten().to(weight.device)
        places = weight.index_select(1, index).double().reshape(len(weight), group.size, -1)
        name = read.weight.removesuffix(".weight")
        consumer = Consumer(name, places, state.padded or read.zero_padded)
        found[read.weight] = Feed(read, columns), consumer
    feeds, consumers = zip(*found.values(), strict=True)
    names = channels.reading.network.tensors
    slopes = {node: tensors[name] for node, name in _slopes(states[0].functions, names)}
    return _activation(states[0].functions, slopes), feeds, consumers


def _only_producer(channels: Channels, group: Group) -> Write:
    """The one layer, called once, that writes each of the channels once."""
    if group.kind == "residual":
        raise _ObstacleError("several layers add to its channels (a residual stream)")
    if len(group.producers) != 1:
        raise _ObstacleError("several layers write its channels")
    (write,) = group.producers
    if write.weight is None:
        raise _ObstacleError("its weight is computed from other tensors")
    if sum(other.weight == write.weight for other in channels.reading.writes) > 1:
        raise _ObstacleError(f"'{group.name}' is called more than once")
    if write.groups > 1:
        raise _ObstacleError("a grouped convolution writes it: its filters read different inputs")
    if len(write.labels) != group.size:
        raise _ObstacleError("some of its channels leave in bundles")
    return write


def _walk(channels: Channels, group: Group, start: fx.Node) -> list[tuple[Read, _State]]:
    """Every consumer that is reached from the producer, and what lies between."""
    reads = {read.node: read for read in group.consumers}
    met: list[tuple[Read, _State]] = []
    pending = [(start, _State())]
    while pending:
        node, state = pending.pop()
        for user in node.users:
            if user in reads and channels.reading.roles[user] == "layer":
                met.append((_readable(channels, reads[user]), state))
            else:
                pending.append((user, _pass(channels, user, state)))
    order = {read.node: i for i, read in enumerate(group.consumers)}
    return sorted(met, key=lambda pair: order[pair[0].node])


def _readable(channels: Channels, read: Read) -> Read:
    if read.groups > 1:
        raise _ObstacleError(f"a grouped convolution reads it ({place_of(read.node)})")
    if read.weight is None:
        raise _ObstacleError(f"a computed weight reads it ({place_of(read.node)})")
    if any(
        write.weight == read.weight and write.node is not read.node and write.dim == read.dim
        for write in channels.reading.writes
    ):
        raise _ObstacleError(f"the weight of {place_of(read.node)} serves twice")
    return read


def _pass(channels: Channels, node: fx.Node, state: _State) -> _State:
    """The state behind ``node``."""
    role = channels.reading.roles.get(node)
    if role == "linear":
        return state
    if role == "pad":
        return _State(state.norm, state.functions, padded=True)
    if role in ("activation", "monotone"):
        return _State(state.norm, (*state.functions, node), state.padded)
    if role == "norm":
        if state.norm is not None or state.functions:
            raise _ObstacleError(f"a batch norm follows a norm or an activation ({place_of(node)})")
        return _State(node, (), state.padded)
    if node.op == "output":
        raise _ObstacleError("its channels reach the network's output")
    raise _ObstacleError(f"{place_of(node)} lies between producer and consumer")


def _slopes(
    functions: tuple[fx.Node, ...], names: Mapping[str, str]
) -> Iterator[tuple[fx.Node, str]]:
    """The parameters that functions on the path have, a single number each, and their names."""
    for function in functions:
        for node in function.all_input_nodes:
            if node.name in names:
                yield node, names[node.name]


def _activation(functions: tuple[fx.Node, ...], slopes: Mapping[fx.Node, Tensor]) -> Activation:
    """The functions on the path as one."""
    composed = IDENTITY
    for node in functions:
        composed = _after(composed, node, slopes)
    return composed


def _after(first: Activation, node: fx.Node, slopes: Mapping[fx.Node, Tensor]) -> Activation:
    name = operator_of(node)
    if "max_pool" in name:  # the identity on constants; keeps positive multiples, not sums
        second = Activation("max_pool", lambda x: x, homogeneous=True)
    else:
        second = Activation(name, lambda x: _apply(node, x, slopes), is_homogeneous(node))
    if first.is_identity:
        return second
    return Activation(
        f"{second.name}∘{first.name}",
        lambda x: second.apply(first.apply(x)),
        first.homogeneous and second.homogeneous,
    )


def _apply(node: fx.Node, x: Tensor, slopes: Mapping[fx.Node, Tensor]) -> Tensor:
    """The operator itself on other values."""

    def value(arg: Any) -> Any:
        if not isinstance(arg, fx.Node):
            return arg
        return slopes[arg].detach().to(x) if arg in slopes else x

    result = node.target(*map(value, node.args), **node.kwargs)  # type: ignore[operator]
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first
