"""A group with all tensors that hold its channels: who writes them, norms, and who reads them.

More groups than a :class:`~bequest.graph.units.Unit` can serve have this form: residual streams,
and channels that a depthwise convolution passes on, which counts as one more of their producers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from bequest.graph.chains import Feed, norm_after, places, producer_of
from bequest.graph.functions import ObstacleError
from bequest.graph.groups import Channels, Group, Index
from bequest.graph.reading import Write
from bequest.graph.trace import operator_of
from bequest.graph.units import Producer

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_NORM = {"gamma": 1, "beta": 2, "mean": 3, "var": 4}


@dataclass(frozen=True)
class Member:
    """A producer of the group, and the names of the tensors that it was read from.

    Attributes:
        producer: its numbers, in the order of the group's channels.
        weight: name of its weight.
        dim: the dimension of the weight that the channels are along.
        bias: name of its bias, or None.
        norm: "gamma", "beta", "mean", "var" → the batch norm's tensor, or None; empty without.
        index: int64 (n,): where each channel is in these tensors.
    """

    producer: Producer
    weight: str
    dim: int
    bias: str | None
    norm: Mapping[str, str | None]
    index: Index

    def rows(self) -> Tensor:
        """[w̃; b̃] of every channel, float64 (n, d + 1)."""
        filters, biases = self.producer.folded()
        return torch.cat([filters, biases[:, None]], dim=1)

    def rows_of(self, kept: Tensor | None = None) -> Tensor:
        """Where channels are in the tensors; all of them, or those of these positions."""
        index = torch.from_numpy(self.index).to(self.producer.stored.device)
        return index if kept is None else index[kept]


@dataclass(frozen=True)
class Coupled:
    """A group of n channels.

    Attributes:
        name: the group's name.
        size: n.
        members: who writes the channels, at least one.
        feeds: who reads them.
        columns: for each feed the weights that read a channel, float64 (n, ...).
    """

    name: str
    size: int
    members: tuple[Member, ...]
    feeds: tuple[Feed, ...]
    columns: tuple[Tensor, ...]


def couple(channels: Channels, group: Group, tensors: Mapping[str, Tensor]) -> Coupled:
    """Reads a group's numbers from the dense network.

    Args:
        channels: the network's groups.
        group: one of them.
        tensors: qualified name → dense tensor.

    Raises:
        ObstacleError: some tensor holds the channels in another way; the message says which.
    """
    if group.fixed.any():
        raise ObstacleError("some of its channels can't leave")
    if group.blocks is not None or group.normalised:
        raise ObstacleError("its channels leave in blocks, or a norm mixes them")
    writes = (*group.producers, *_depthwise(channels, group))
    members = tuple(_member(channels, group, write, tensors) for write in writes)
    feeds = []
    for read in group.consumers:
        if read.groups > 1 or read.weight is None:
            raise ObstacleError("a grouped convolution or a computed weight reads it")
        feeds.append(Feed(read, places(channels.positions(group, read.labels), group.size)))
    if not feeds:
        raise ObstacleError("no layer reads its channels")
    _require_known(channels, group, members, feeds)
    columns = []
    for feed in feeds:
        weight = tensors[str(feed.read.weight)].detach().movedim(feed.read.dim, 0)
        columns.append(weight[torch.from_numpy(feed.columns).to(weight.device)].double().flatten(1))
    return Coupled(group.name, group.size, members, tuple(feeds), tuple(columns))


def _depthwise(channels: Channels, group: Group) -> Iterator[Write]:
    """The convolutions that pass the channels on, each by a filter of its own."""
    reading = channels.reading
    for node in reading.network.nodes:
        if reading.roles.get(node) != "join" or operator_of(node) not in _CONVOLUTIONS:
            continue
        weight, bias = (
            reading.network.tensors.get(arg.name) if isinstance(arg, fx.Node) else None
            for arg in (*node.args[1:3], None)[:2]
        )
        labels = reading.ledger.slots.get((str(weight), 0))
        if labels is not None and (channels.positions(group, labels) >= 0).any():
            yield Write(node, "conv", weight, bias, 0, labels, len(labels))


def _member(
    channels: Channels, group: Group, write: Write, tensors: Mapping[str, Tensor]
) -> Member:
    if write.weight is None:
        raise ObstacleError("a weight that writes it is computed from other tensors")
    if write.groups not in (1, len(write.labels)):
        raise ObstacleError("a grouped convolution writes it: its filters read different inputs")
    positions = channels.positions(group, write.labels)
    if sorted(positions.tolist()) != list(range(group.size)):
        raise ObstacleError(f"'{write.weight}' holds its channels in unequal numbers")
    norm = norm_after(channels, write.node)
    if norm is not None and len(write.node.users) > 1:
        raise ObstacleError(f"a norm and others read what '{write.weight}' writes")
    return Member(
        producer=producer_of(channels, group, write, tensors),
        weight=write.weight,
        dim=write.dim,
        bias=write.bias,
        norm={} if norm is None else _norm_names(channels, norm),
        index=places(positions, group.size)[:, 0],
    )


def _norm_names(channels: Channels, norm: fx.Node) -> dict[str, str | None]:
    names, args = channels.reading.network.tensors, norm.args
    nodes = {key: args[place] if place < len(args) else None for key, place in _NORM.items()}
    return {
        key: names[node.name] if isinstance(node, fx.Node) else None for key, node in nodes.items()
    }


def _require_known(
    channels: Channels, group: Group, members: tuple[Member, ...], feeds: list[Feed]
) -> None:
    """Every tensor along which the channels lie is one that was read, and was read once."""
    known = [(member.weight, member.dim) for member in members]
    known += [(str(feed.read.weight), feed.read.dim) for feed in feeds]
    for member in members:
        known += [(name, 0) for name in (member.bias, *member.norm.values()) if name is not None]
    if len({*known}) < len(known):
        raise ObstacleError("one of its tensors serves twice")
    for (tensor, dim), labels in channels.reading.ledger.slots.items():
        if (channels.positions(group, labels) >= 0).any() and (tensor, dim) not in known:
            raise ObstacleError(f"'{tensor}' holds a number for each channel")
