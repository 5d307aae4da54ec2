"""Channels that must leave together, gathered into the groups that pruning decides over.

A *channel* is a connected component of tied labels. A *group* holds the channels of every layer
that shares one with another: the filters of one convolution (an inner group), or all the layers
that write to a residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bequest.graph.balances import divided
from bequest.graph.branches import streams
from bequest.graph.ledger import Balance, Labels
from bequest.graph.reading import Read, Reading, Write
from bequest.graph.trace import place_of

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """A set of channels that are ranked and pruned as one.

    Attributes:
        name: the weight's owner of its first producer, e.g. ``layer1.0.conv1``.
        channels: ids of the channels, in the order of the first producer's filters.
        producers: the layers that write the channels.
        parts: for each producer the positions of its channels in the group.
        consumers: the layers that read them.
        kind: "inner", or "residual" where branches are added.
        fixed: True for channels that can't leave; shape (n,).
        reasons: why channels can't leave, each named once.
        segments: sets of positions each of which keeps a channel: parts that are split off.
        blocks: block number of every channel where blocks keep equal numbers, else None.
        is_output: True where the channels are the network's output.
        literal: operators whose size along these channels may stand in the code; tried out before
            pruning.
        normalised: norms whose statistics are taken over these channels.
    """

    name: str
    channels: Index
    producers: tuple[Write, ...]
    parts: tuple[Index, ...]
    consumers: tuple[Read, ...]
    kind: Literal["inner", "residual"]
    fixed: NDArray[np.bool_]
    reasons: tuple[str, ...]
    segments: tuple[Index, ...]
    blocks: Index | None
    is_output: bool
    literal: tuple[str, ...]
    normalised: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.channels)

    @property
    def layers(self) -> tuple[str, ...]:
        """Qualified names of the producers."""
        return tuple(w.weight.removesuffix(".weight") for w in self.producers if w.weight)

    @property
    def readers(self) -> tuple[str, ...]:
        """Qualified names of the consumers; the operator's name where the weight is computed."""
        names = (read.weight or read.node.name for read in self.consumers)
        return tuple(dict.fromkeys(name.removesuffix(".weight") for name in names))

    @property
    def free(self) -> int:
        """Number of channels that can leave."""
        return int((~self.fixed).sum())


@dataclass(frozen=True)
class Channels:
    """All groups of a network, and the channel of every label.

    Attributes:
        reading: the rules' statements.
        channel_of: label → channel.
        groups: the groups, in the order of their first producers.
        training: the same of the network with training flags set, where evaluation doesn't read
            every tensor (:mod:`bequest.surgery.training`).
    """

    reading: Reading
    channel_of: Index
    groups: tuple[Group, ...]
    training: Channels | None = None

    def positions(self, group: Group, labels: Labels) -> Index:
        """For each label the position of its channel in ``group``, −1 where it is not in it."""
        lookup = np.full(int(self.channel_of.max(initial=0)) + 1, -1)
        lookup[group.channels] = np.arange(group.size)
        return lookup[self.channel_of[labels]]


def group(reading: Reading) -> Channels:
    """Gathers channels into groups.

    Two producers belong to one group when they share a channel that could leave. The order of
    groups, and of channels in a group, is that of execution.
    """
    ledger = reading.ledger
    channel_of = ledger.components().astype(np.int64)
    reasons = _frozen_channels(reading, channel_of)
    found = _gather(reading, channel_of)
    marked = {
        "outputs": _marked(ledger.outputs, channel_of),
        # Heads are added to (biases, rotated halves), and are still no stream of branches.
        "streams": _marked([*ledger.streams, *streams(reading, channel_of)], channel_of)
        - _marked(ledger.batches, channel_of),
    }
    groups = [
        _group(channel_of, one, reasons, marked["outputs"], marked["streams"]) for one in found
    ]
    return Channels(reading, channel_of, tuple(groups))


def _frozen_channels(reading: Reading, channel_of: Index) -> dict[int, str]:
    """Channel → the first reason why it can't leave."""
    reasons: dict[int, str] = {}
    for labels, reason in reading.ledger.stuck(channel_of):
        for channel in np.unique(channel_of[labels]):
            reasons.setdefault(int(channel), reason)
    return reasons


def _marked(marks: list[Labels], channel_of: Index) -> set[int]:
    return {int(c) for labels in marks for c in np.unique(channel_of[labels])}


@dataclass
class _Statements:
    """What the rules said of the channels of one group, in order of execution.

    ``channels`` are in the order of the producers' filters; ``division`` is that into blocks.
    """

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    literals: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    segments: list[Labels] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    channels: Index = field(default_factory=lambda: np.zeros(0, np.int64))
    division: tuple[Index | None, str] = (None, "")


def _gather(reading: Reading, channel_of: Index) -> list[_Statements]:
    """Producers that share channels or blocks of equal number, and what else was said of these.

    Where no division goes with all blocks, those give way that the code alone asks for: its splits
    may be of unequal parts in a program. First those that several groups share, then all.
    """
    alone = _Homes(reading, channel_of, [])
    balances = reading.ledger.balances
    for shared in (True, False):
        found = _Homes(reading, channel_of, balances).statements()
        torn = [id(b) for one in found if one.division[1] for b in one.balances]
        balances = [
            one
            for one in balances
            if one.firm or id(one) not in torn or (shared and len(alone.of(one.labels)) < 2)
        ]
    return _Homes(reading, channel_of, balances).statements()


class _Homes:
    """Which producers belong together: those that share a channel, or one of the balances.

    Args:
        reading: of the network.
        channel_of: label → channel.
        balances: those that keep producers together.
    """

    def __init__(self, reading: Reading, channel_of: Index, balances: Sequence[Balance]) -> None:
        self._reading, self._channel_of, self._balances = reading, channel_of, balances
        together = [write.labels for write in reading.writes] + [one.labels for one in balances]
        channels = [np.unique(channel_of[labels]) for labels in together]
        self._count = count = len(together)
        left = np.repeat(np.arange(count), [len(some) for some in channels])
        right = count + np.concatenate([*channels, np.zeros(0, np.int64)])
        size = count + int(channel_of.max(initial=-1)) + 1
        edges = coo_array((np.ones(len(left), np.int8), (left, right)), (size, size))
        self._home = connected_components(edges, directed=False)[1]

    def of(self, labels: Labels) -> list[int]:
        """The homes of labels."""
        found: list[int] = np.unique(self._home[self._count + self._channel_of[labels]]).tolist()
        return found

    def statements(self) -> list[_Statements]:
        """What was said of the producers of each home, in order of execution."""
        reading, ledger = self._reading, self._reading.ledger
        found: dict[int, _Statements] = {}
        for number, write in enumerate(reading.writes):
            found.setdefault(int(self._home[number]), _Statements()).writes.append(write)

        def concerned(labels: Labels) -> list[_Statements]:
            return [found[home] for home in self.of(labels) if home in found]

        for read in reading.reads:
            for one in concerned(read.labels):
                one.reads.append(read)
        for labels, place in ledger.literals:
            for one in concerned(labels):
                one.literals.append(place)
        for node, labels in reading.normalised.items():
            for one in concerned(labels):
                one.norms.append(place_of(node))
        for labels in ledger.segments:
            for one in concerned(labels):
                one.segments.append(labels)
        for balance in self._balances:
            for one in concerned(balance.labels):
                one.balances.append(balance)
        for one in found.values():
            order = np.concatenate([self._channel_of[write.labels] for write in one.writes])
            _, first = np.unique(order, return_index=True)
            one.channels = order[np.sort(first)]
            one.division = divided(one.balances, self._channel_of, one.channels)
        return list(found.values())


def _group(
    channel_of: Index,
    said: _Statements,
    reasons: dict[int, str],
    outputs: set[int],
    streams: set[int],
) -> Group:
    channels = said.channels
    inside = {int(c) for c in channels}
    blocks, conflict = said.division
    fixed = np.array([c in reasons for c in channels], bool)
    why = dict.fromkeys(reasons[int(c)] for c in channels if int(c) in reasons)
    if conflict:
        fixed, why = np.ones(len(channels), bool), {**why, conflict: None}
    producers = tuple({(w.weight or w.node.name): w for w in said.writes}.values())
    return Group(
        name=_name(said.writes[0]),
        channels=channels,
        producers=producers,
        parts=tuple(
            np.flatnonzero(np.isin(channels, channel_of[write.labels])) for write in producers
        ),
        consumers=tuple({(read.node, read.weight): read for read in said.reads}.values()),
        kind="residual" if inside & streams else "inner",
        fixed=fixed,
        reasons=tuple(why),
        segments=tuple(
            np.flatnonzero(np.isin(channels, channel_of[labels])) for labels in said.segments
        ),
        blocks=blocks,
        is_output=bool(inside & outputs),
        literal=tuple(dict.fromkeys(said.literals)),
        normalised=tuple(dict.fromkeys(said.norms)),
    )


def _name(write: Write) -> str:
    if write.weight is None:
        return write.node.name
    owner, _, attribute = write.weight.rpartition(".")
    return owner if attribute == "weight" and owner else write.weight
