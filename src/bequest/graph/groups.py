"""Channels that must leave together, gathered into the groups that pruning decides over.

A *channel* is a connected component of tied labels. A *group* holds the channels of every layer
that shares one with another: the filters of one convolution (an inner group), or all the layers
that write to a residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
        "streams": _marked(ledger.streams, channel_of) - _marked(ledger.batches, channel_of),
    }
    groups = [
        _group(channel_of, one, reasons, marked["outputs"], marked["streams"]) for one in found
    ]
    return Channels(reading, channel_of, tuple(groups))


def _frozen_channels(reading: Reading, channel_of: Index) -> dict[int, str]:
    """Channel → the first reason why it can't leave."""
    reasons: dict[int, str] = {}
    for labels, reason in reading.ledger.frozen:
        for channel in np.unique(channel_of[labels]):
            reasons.setdefault(int(channel), reason)
    return reasons


def _marked(marks: list[Labels], channel_of: Index) -> set[int]:
    return {int(c) for labels in marks for c in np.unique(channel_of[labels])}


@dataclass
class _Statements:
    """What the rules said of the channels of one group, in order of execution."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    literals: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    segments: list[Labels] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)


def _gather(reading: Reading, channel_of: Index) -> list[_Statements]:
    """Producers that share channels, and what else was said of these; each is looked at once."""
    writes = [np.unique(channel_of[write.labels]) for write in reading.writes]
    count = len(writes)
    left = np.repeat(np.arange(count), [len(channels) for channels in writes])
    right = count + np.concatenate([*writes, np.zeros(0, np.int64)])
    size = count + int(channel_of.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(left), np.int8), (left, right)), (size, size))
    component = connected_components(edges, directed=False)[1]
    found: dict[int, _Statements] = {}
    for write, home in zip(reading.writes, component[:count].tolist(), strict=True):
        found.setdefault(home, _Statements()).writes.append(write)

    def concerned(labels: Labels) -> list[_Statements]:
        homes = np.unique(component[count + channel_of[labels]]).tolist()
        return [found[home] for home in homes if home in found]

    ledger = reading.ledger
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
    for balance in ledger.balances:
        for one in concerned(balance.labels):
            one.balances.append(balance)
    return list(found.values())


def _group(
    channel_of: Index,
    said: _Statements,
    reasons: dict[int, str],
    outputs: set[int],
    streams: set[int],
) -> Group:
    order = np.concatenate([channel_of[write.labels] for write in said.writes])
    _, first = np.unique(order, return_index=True)
    channels = order[np.sort(first)]
    inside = {int(c) for c in channels}
    blocks, conflict = _blocks(said.balances, channel_of, channels)
    fixed = np.array([c in reasons for c in channels])
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
        consumers=tuple({read.node: read for read in said.reads}.values()),
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


def _blocks(
    balances: list[Balance], channel_of: Index, channels: Index
) -> tuple[Index | None, str]:
    """Block number per channel from all the balances that meet the group.

    Several balances agree when one of them, the finest, refines all others. A balance that reaches
    beyond the group, or whose blocks no partition of the channels can keep equal, is a conflict:
    its text says so.
    """
    found: list[Index] = []
    for balance in balances:
        counts = _counts(balance, channel_of, channels)
        if counts.sum() < balance.labels.size:
            return None, f"blocks of equal number reach beyond the group ({balance.place})"
        if (counts == counts[0]).all():
            continue  # every channel has as many places in each of the blocks: equal by itself
        if ((counts > 0).sum(0) != 1).any():
            return None, _not_one_block(balance, counts)
        found.append(counts.argmax(0))
    if not found:
        return None, ""
    finest = max(found, key=lambda partition: int(partition.max()))
    for partition in found:
        pairs = {(int(a), int(b)) for a, b in zip(finest, partition, strict=True)}
        if len(pairs) > int(finest.max()) + 1:
            places = ", ".join([balance.place for balance in balances][:2])
            return None, f"two different divisions into equal blocks ({places})"
    return finest, ""


def _counts(balance: Balance, channel_of: Index, channels: Index) -> Index:
    """How many places each channel has in each block: (blocks, n)."""
    position = np.full(int(channel_of.max()) + 1, -1)
    position[channels] = np.arange(len(channels))
    at = position[channel_of[balance.labels]].reshape(balance.blocks, -1)
    counts = np.zeros((balance.blocks, len(channels) + 1), np.int64)
    np.add.at(counts, (np.arange(balance.blocks)[:, None], at), 1)  # strangers stand last
    return counts[:, :-1]


def _not_one_block(balance: Balance, counts: Index) -> str:
    """Why channels that lie in several blocks, or in none, can't be kept equal in number."""
    if (counts.sum(0) == 0).any():
        return f"blocks of equal number cover the group in part ({balance.place})"
    return (
        f"its channels stand for places in several of the blocks that must stay equal in number "
        f"({balance.place})"
    )
