"""The layers that are pruned: who is still there, who took up whom, which pairs are near."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from bequest.graph.chains import Bound
from bequest.graph.groups import Channels, Group, Index
from bequest.graph.trace import operator_of
from bequest.graph.units import Unit
from bequest.restorers.weight_space import Delivery, WeightSpace, nothing
from bequest.robust.impact import CANDIDATE_MEMORY, Values, propagated
from bequest.robust.intervals import Interval

Pair = tuple[int, int]
"""(kept a, removed b)."""


class Layer:
    """One group of channels during pruning.

    Args:
        group: the group.
        bound: its dense numbers; a unit without obstacle can merge pairs, others lose filters.
        channels: the network's groups.
        target: how many channels leave in the end.
        most: how many leave in one step.
    """

    def __init__(
        self, group: Group, bound: Bound, channels: Channels, target: int, most: int
    ) -> None:
        self.group, self.bound, self.unit = group, bound, bound.unit
        self.target, self.most = target, most
        self.heir = np.arange(group.size)  # the channel that stands for each dense one
        self.fresh = ~group.fixed  # neither removed nor taken anything up
        self.merges = self.unit.obstacle is None
        if not self.merges:
            return
        self.producer = group.producers[0]
        self.end = _end_of(channels, self.producer.node)
        filters, biases = self.unit.producer.folded()
        rows = torch.cat([filters, biases[:, None]], dim=1)
        self.rows, self.outgoing = rows, _outgoing(self.unit)
        self.distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which channels are still there."""
        return np.asarray(self.heir == np.arange(self.group.size))

    @property
    def removed(self) -> int:
        """How many have left."""
        return int((~self.alive).sum())

    def wanted(self) -> int:
        """How many leave in the next step."""
        return min(self.most, self.target - self.removed)

    def merge(self, pairs: list[Pair]) -> None:
        """Removed channels, and all that they had taken up, go to those that stay."""
        for kept, gone in pairs:
            self.heir[self.heir == gone] = kept
            self.fresh[[kept, gone]] = False

    def loads(self) -> Tensor:
        """‖outgoing_b‖, the weights that read each channel and all that it took up; (n,)."""
        index = torch.from_numpy(self.heir).to(self.outgoing.device)
        held = torch.zeros_like(self.outgoing).index_add_(0, index, self.outgoing)
        size: Tensor = torch.linalg.vector_norm(held, dim=1)
        return size

    def sensitivities(self, held: Values) -> Tensor | None:
        """How the outputs' margins follow each channel, (n,); None where no bound is known.

        The centre of the interval that a unit change of the channel before its activation makes at
        the output, without its mean over outputs: what all of them share moves no margin.

        Args:
            held: the values of the network as it is.
        """
        everyone = np.arange(self.group.size)
        found = self._in_chunks(everyone, held, lambda part: self._units(part, held))
        if not found.bounded:
            return None
        margins = found.centre - found.centre.mean(1, keepdim=True)
        size: Tensor = torch.linalg.vector_norm(margins, dim=1)
        return size

    def candidates(self, recursive: bool, weight: Tensor) -> list[tuple[Pair, float]]:
        """Disjoint pairs with ‖w̃_a − w̃_b‖·weight_b of merging b into a, ascending.

        Rows have the bias appended and the batch norm folded in. Each channel is in one pair at
        most.

        Args:
            recursive: whether channels that took others up are in pairs.
            weight: of each channel, (n,): :meth:`loads` or :meth:`sensitivities`.
        """
        free = self.alive & ~self.group.fixed & (self.fresh | recursive)
        index = np.flatnonzero(free)
        table = (self.distance * weight).cpu().numpy()[np.ix_(index, index)]
        np.fill_diagonal(table, np.inf)
        found: list[tuple[Pair, float]] = []
        for _ in range(len(index) // 2):
            a, b = divmod(int(table.argmin()), len(index))
            found.append(((int(index[a]), int(index[b])), float(table[a, b])))
            table[[a, b]] = table[:, [a, b]] = np.inf
        return found

    def weakest(self, wanted: int) -> list[int]:
        """Where pairs can't merge: the channels with the smallest mean |w| of their filters."""
        means = sum(producer.weight.abs().mean(1) for producer in self.unit.producers)
        assert isinstance(means, Tensor)
        order = means.cpu().numpy().argsort(kind="stable")
        free = self.alive & ~self.group.fixed
        return [int(channel) for channel in order if free[channel]][:wanted]

    def drop(self, gone: list[int]) -> None:
        """Channels leave and nobody takes them up."""
        self.heir[gone] = -1

    def impacts(self, pairs: list[Pair], held: Values) -> Interval:
        """How merging each pair can change the output: (pairs, outputs), in batched passes.

        Args:
            pairs: candidates, each looked at by itself.
            held: the values of the network as it is before any of them merges.
        """
        return self._in_chunks(np.array(pairs), held, lambda part: self._merged(part, held))

    def _in_chunks(
        self, items: Index, held: Values, start: Callable[[Index], tuple[Index, Interval]]
    ) -> Interval:
        """Changes of the output for many items, as many at once as memory bears."""
        sizes = (one.lower.numel() for one in held.known.values() if isinstance(one, Interval))
        chunk = max(1, CANDIDATE_MEMORY // max(sizes, default=1))
        parts = []
        for first in range(0, len(items), chunk):
            moved, values = start(items[first : first + chunk])
            parts.append(propagated(self.end, self._placed(moved, values, held), held))
        return Interval(
            torch.cat([part.lower.flatten(1) for part in parts]),
            torch.cat([part.upper.flatten(1) for part in parts]),
        )

    def _placed(self, moved: Index, values: Interval, held: Values) -> Interval:
        """A change of one channel per item: (items, *shape), zero elsewhere."""
        like = held.known[self.end].lower
        axis = like.ndim - 1 if operator_of(self.producer.node) == "linear" else 1
        ends = []
        for end in (values.lower, values.upper):
            whole = like.new_zeros(len(moved), *like.shape)
            items = torch.arange(len(moved), device=whole.device)
            whole.movedim(axis + 1, 1)[items, moved] = end.movedim(axis, 0)
            ends.append(whole)
        return Interval(*ends)

    def _merged(self, pairs: Index, held: Values) -> tuple[Index, Interval]:
        """Channels b, and what (w_a − w_b)·x + b_a − b_b can be for each pair."""
        kept, gone = pairs.T
        return gone, self._replaced(self.producer.node, self.rows[kept] - self.rows[gone], held)

    def _units(self, moved: Index, held: Values) -> tuple[Index, Interval]:
        like = held.known[self.end].lower
        axis = like.ndim - 1 if operator_of(self.producer.node) == "linear" else 1
        ones = torch.ones_like(like.select(axis, 0)).unsqueeze(axis)
        ones = ones.expand(*(len(moved) if d == axis else -1 for d in range(like.ndim)))
        return moved, Interval(ones, ones)

    def _replaced(self, node: fx.Node, rows: Tensor, held: Values) -> Interval:
        """What a layer with these rows writes, one output per row."""
        weight = node.args[1].meta["val"]  # type: ignore[union-attr]
        filters = rows[:, :-1].reshape(len(rows), *weight.movedim(self.producer.dim, 0).shape[1:])
        filters = filters.movedim(0, self.producer.dim)

        def linear(x: Tensor, by: Tensor) -> Tensor:
            made: Tensor = node.target(x, by, None, *node.args[3:])  # type: ignore[operator]
            return made

        data: Any = node.args[0]
        read: Interval = held.known[data]
        return read.through(linear, filters).shifted(
            rows[:, -1].view(-1, *(1 for _ in weight.shape[2:]))
        )


def _end_of(channels: Channels, node: fx.Node) -> fx.Node:
    """The layer's output, or that of the batch norm behind it."""
    roles = channels.reading.roles
    norm = next((user for user in node.users if roles.get(user) == "norm"), None)
    if norm is None:
        return node
    return next((user for user in norm.users if operator_of(user) == "getitem"), norm)


def _outgoing(unit: Unit) -> Tensor:
    """Every weight that reads each channel, (n, ·)."""
    return torch.cat([c.weight.transpose(0, 1).flatten(1) for c in unit.consumers], dim=1)


@dataclass(frozen=True)
class Heirs(WeightSpace):
    """Each removed channel's outgoing weights are added to those of the one that it merged into.

    Attributes:
        heir: group → for every channel the one that stands for it.
    """

    name: ClassVar[str] = "sum"
    heir: Mapping[str, NDArray[np.int64]]

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        heirs = torch.from_numpy(self.heir[unit.name]).to(kept.device)[removed]
        matrix = nothing(unit, kept, removed)
        return Delivery(matrix.scatter_(1, torch.searchsorted(kept, heirs)[:, None], 1.0))
