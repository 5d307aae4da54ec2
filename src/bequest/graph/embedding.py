"""Channels as what they say to noise, where no single layer's filters tell what they are.

Gated units are products of two layers, heads of attention mix tokens, a depthwise filter reads what
another layer wrote. The operators between the layers that write a group and those that read it run
alone, on standard normal numbers in the place of whatever the network has there; so do recurrent
layers, which read the units that they write. The values of a
channel, at all places that are read, are its row: rows that are linear combinations of others are
channels that the others can stand in for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bequest.execution.randomness import stream
from bequest.graph.chains import Bound, consumed, readable
from bequest.graph.functions import ObstacleError
from bequest.graph.geometry import LAYERS
from bequest.graph.groups import Channels, Group
from bequest.graph.interpreter import Interpreter
from bequest.graph.ledger import Labels, Layout
from bequest.graph.reading import Read
from bequest.graph.recurrence import is_recurrent, read_by_weights
from bequest.graph.trace import operator_of, place_of
from bequest.graph.units import Activation, Producer, Unit

WIDEST = 2048
"""Channels of a group that is embedded, at most: its rows have four times as many numbers."""

PER_CHANNEL, FEWEST = 4, 2048
"""Numbers of a row for each channel of the group, well more than unknowns, and in all."""

MOST_RUNS = 256


def embedded(
    channels: Channels, group: Group, bound: Bound, tensors: Mapping[str, Tensor], seed: int
) -> Bound:
    """A group that no chain from one layer serves, as a unit of what its channels say to noise.

    Args:
        channels: the network's groups.
        group: one of them.
        bound: its unit, with an obstacle.
        tensors: qualified name → dense tensor.
        seed: of the noise.

    Returns:
        A unit whose producer has a row per channel, centred, and its mean as bias, and nothing
        between it and the consumers; with another obstacle where the group can't be run alone.
    """
    try:
        segment = Segment(channels, group)
        found = [consumed(channels, group, read, tensors, padded=False) for read in segment.reads]
        rows = segment.rows(tensors, seed)
    except ObstacleError as reason:
        return replace(bound, unit=replace(bound.unit, obstacle=str(reason)))
    means = rows.mean(1)
    centred = (rows - means[:, None]) / rows.shape[1] ** 0.5
    feeds, consumers = zip(
        *{feed.read.weight: (feed, one) for feed, one in found}.values(), strict=True
    )
    unit = Unit(
        group.name,
        group.size,
        producers=(Producer(group.name, "linear", centred, means, None),),
        activation=Activation("identity", lambda x: x, homogeneous=True),
        consumers=consumers,
        obstacle=None,
    )
    return Bound(unit, feeds)


def obstacle_to(channels: Channels, group: Group) -> str | None:
    """Why a group can't be embedded; None = it can, as far as shows without running it."""
    try:
        for read in Segment(channels, group).reads:
            readable(channels, read)
    except ObstacleError as reason:
        return str(reason)
    return None


class Segment:
    """The operators between the layers that write a group's channels and those that read them.

    Args:
        channels: the network's groups.
        group: one of them.

    Raises:
        ObstacleError: they don't stand alone.
    """

    def __init__(self, channels: Channels, group: Group) -> None:
        self._channels, self._group = channels, group
        reading = channels.reading
        if group.kind == "residual":
            raise ObstacleError("several layers add to its channels (a residual stream)")
        if group.size > WIDEST:
            raise ObstacleError(f"no single layer tells its channels, and they are over {WIDEST}")
        if group.normalised:
            raise ObstacleError(f"{group.normalised[0]} lies between producer and consumer")
        self.reads = tuple(group.consumers)
        if not self.reads:
            raise ObstacleError("no layer reads its channels")
        self._own = np.zeros(int(channels.channel_of.max(initial=0)) + 1, bool)
        self._own[group.channels] = True
        ends = {read.node for read in self.reads}
        starts = {w.node for w in reading.writes if self._is_own(w.labels)}
        if any(node in starts or self._carries(node) for node in ends if not is_recurrent(node)):
            raise ObstacleError("a layer reads its channels and writes them")
        steady, inside = reading.steady, self._behind(starts)
        self._nodes = [node for node in reading.network.nodes if node in inside]
        self._noise: dict[fx.Node, None] = {}
        for node in self._nodes:
            for value in node.all_input_nodes:
                if value in inside or value in steady or reading.network.tensors.get(value.name):
                    continue
                data = node.args[0] if operator_of(node) in LAYERS or is_recurrent(node) else None
                if value is not data or not value.meta["val"].is_floating_point():
                    raise ObstacleError(f"{place_of(node)} reads something beside its channels")
                self._noise[value] = None
        for read in self.reads:
            served = operator_of(read.node) in LAYERS and read.node.args[0] in inside
            if not served and not is_recurrent(read.node):
                raise ObstacleError(f"no layer by itself reads it ({place_of(read.node)})")

    def rows(self, tensors: Mapping[str, Tensor], seed: int) -> Tensor:
        """What each channel says, at places that are read; float64 (n, m), m the same for all."""
        wanted = max(FEWEST, PER_CHANNEL * self._group.size)
        generator = stream(seed)
        found: list[Tensor] = []
        for _ in range(MOST_RUNS):
            run = _Run(self._channels, tensors)
            for node in self._noise:
                shape = node.meta["val"].shape
                noise = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
                run.values[node] = noise.to(run.device)
            for node in self._nodes:
                try:
                    run.value(node)
                except RuntimeError as error:  # the code asks for types of its own
                    raise ObstacleError(f"its operators don't run alone: {error}") from error
            values = torch.cat([self._said(run, read) for read in self.reads], dim=1)
            places = torch.randperm(values.shape[1], generator=generator, device="cpu")
            found.append(values[:, places[:wanted].to(values.device)])
            if sum(one.shape[1] for one in found) >= wanted:
                break
        rows = torch.cat(found, dim=1)
        if not bool(rows.isfinite().all()):
            raise ObstacleError("what its channels say to noise is not finite")
        return rows

    def _said(self, run: _Run, read: Read) -> Tensor:
        """What a layer reads of each channel, (n, places)."""
        if is_recurrent(read.node):
            values, labels = run.read(read).movedim(-1, 0), read.labels
        else:
            values, labels = self._operand(run, read.node.args[0])
        order = np.argsort(self._channels.positions(self._group, labels), kind="stable")
        foreign = int((self._channels.positions(self._group, labels) < 0).sum())
        index = torch.from_numpy(order[foreign:].copy()).to(run.device)
        return values.index_select(0, index).reshape(self._group.size, -1)

    def _operand(self, run: _Run, data: Any) -> tuple[Tensor, Labels]:
        """A value with the group's channels first, and what these are."""
        layout = self._channels.reading.layouts[data]
        assert isinstance(layout, Layout)
        dim = next(d for d, one in enumerate(layout.dims) if one is not None and self._is_own(one))
        labels = layout.dims[dim]
        assert labels is not None
        return run.value(data).movedim(dim, 0), labels

    def _behind(self, starts: set[fx.Node]) -> set[fx.Node]:
        """The layers that write the channels, and all operators behind that still have them."""
        found, pending = set(starts), list(starts)
        while pending:
            users = pending.pop().users
            new = {one for one in users if one.op == "call_function" and self._carries(one)} - found
            found |= new
            pending += new
        return found

    def _is_own(self, labels: Labels) -> bool:
        return bool(self._own[self._channels.channel_of[labels]].any())

    def _carries(self, node: fx.Node) -> bool:
        layout = self._channels.reading.layouts.get(node)
        layouts = layout if isinstance(layout, tuple) else (layout,)
        steady = node in self._channels.reading.steady
        return not steady and any(
            labels is not None and self._is_own(labels)
            for one in layouts
            if one is not None
            for labels in one.dims
        )


class _Run(Interpreter):
    """Values of some nodes, each computed when it is asked for."""

    def __init__(self, channels: Channels, tensors: Mapping[str, Tensor]) -> None:
        first = next(iter(tensors.values()))
        super().__init__(channels.reading.network, first.device, torch.float64)
        self._tensors = tensors
        self._read: dict[fx.Node, dict[fx.Node, Tensor]] = {}

    def read(self, read: Read) -> Tensor:
        """What a weight of recurrent layers is multiplied with, (t, b, columns)."""
        if read.node not in self._read:
            self._read[read.node] = read_by_weights(read.node, self.value)
        names = self.network.tensors
        return next(x for w, x in self._read[read.node].items() if names[w.name] == read.weight)

    def value(self, node: fx.Node) -> Any:
        """Of an operand; of a placeholder its tensor."""
        if node not in self.values:
            placed = node.op == "placeholder"
            self.values[node] = self.placeholder(node, iter(())) if placed else self.operator(node)
        return self.values[node]

    def arguments(
        self, node: fx.Node, value: Callable[[fx.Node], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """With double precision for whatever floating-point numbers the code asks for."""
        args, kwargs = super().arguments(node, value)
        asked = kwargs.get("dtype")
        if asked is not None and asked.is_floating_point:
            kwargs["dtype"] = torch.float64
        return args, kwargs

    def tensor(self, name: str) -> Tensor:
        """In double precision."""
        return self.constant(self._tensors[name].detach())

    def constant(self, tensor: Tensor) -> Tensor:
        """In double precision."""
        tensor = tensor.to(self.device)
        return tensor.double() if tensor.is_floating_point() else tensor
