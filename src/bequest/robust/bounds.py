"""Every value of two networks over boxes of inputs, by intervals and by back-substitution.

Operators run in order. Intervals of a value in the first network, in the second and of the
difference come from those of what is read (:mod:`bequest.robust.rules`). In front of an operator
that isn't affine they are then met with what back-substitution says of the same values, where that
is affordable: how closely the operator can be bounded depends on how little it may read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from bequest.graph.geometry import LAYERS
from bequest.graph.interpreter import Interpreter
from bequest.graph.trace import Network, operator_of, place_of
from bequest.robust.affine import MOVES, Affine
from bequest.robust.boxes import box_by_box, completed, over, ruled, side_of
from bequest.robust.impact import fits, nothing_known, twin_of
from bequest.robust.intervals import ROUNDING, Interval
from bequest.robust.lines import corner
from bequest.robust.mixing import pair_of
from bequest.robust.rows import Rows, magnitudes
from bequest.robust.rules import Rule, rule_of
from bequest.robust.rules.elementwise import ELEMENTWISE
from bequest.robust.substitution import Pair
from bequest.robust.twins import Twin, Weights

MEMORY = 2**18
"""Numbers in the rows of one value that are substituted together: 2 MiB, which caches hold."""

SIDES = ("first", "second")
EFFORT = 2**29
"""How many numbers the rows of one value may have for one box of inputs: beyond, intervals do."""


class Bounds(Interpreter):
    """Twin of every value, (boxes, *shape).

    Args:
        network: the traced graph, of batch size one.
        weights: qualified name → the tensors of both networks, in float64.
        boxes: how many boxes of inputs.
        device: of every tensor.
        effort: how many numbers the rows of one value may have, over all values in front of it and
            all boxes; values of more are known by intervals alone.
        steps: of descent on each row.

    Attributes:
        gaps: operators without a rule, by place; what follows them is unbounded.
        loose: operators that intervals alone pass, by place.
    """

    keeps = True

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Weights],
        boxes: int,
        device: torch.device,
        effort: float,
        steps: int = 0,
    ) -> None:
        super().__init__(network, device)
        self.gaps: dict[str, None] = {}
        self.loose: dict[str, None] = {}
        held = [self.values, *(_Alone(self.values, side) for side in SIDES)]
        self.pair, *self._alone = (pair_of(network.nodes, one, steps) for one in held)
        self._weights, self._boxes, self._effort = weights, boxes, effort
        self._depth: dict[fx.Node, int] = {}
        self._refined: set[fx.Node] = set()

    def placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> Any:
        """An input, the same for both networks, or weights."""
        found = super().placeholder(node, feeds)
        self._depth[node] = 0
        return Twin(found, found, None) if isinstance(found, Interval) else found

    def tensor(self, name: str) -> Weights:
        """A parameter or buffer of both networks."""
        return self._weights[name]

    def constant(self, tensor: Tensor) -> Weights | None:
        """What the code makes, in both networks alike."""
        if not tensor.is_floating_point():
            return None
        value = tensor.to(self.device, torch.float64)
        return Weights(value, value)

    def operator(self, node: fx.Node) -> Any:
        """Ends of its result, after those of what it reads were drawn in."""
        operands = node.all_input_nodes
        self._depth[node] = max((self._depth.get(one, 0) for one in operands), default=0)
        if operator_of(node) == "getitem":
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        if node.meta.get("val") is None:  # an assertion
            return None
        known = operands and all(isinstance(self.values.get(one), Weights) for one in operands)
        if known and operator_of(node) in MOVES and isinstance(node.meta["val"], Tensor):
            return self._moved(node)
        rule = rule_of(node)
        if rule is None or not operands or not fits(rule, node, self.values):
            self.gaps.setdefault(place_of(node))
            unbounded = over(nothing_known(node, self.device), self._boxes)
            if not any(self._changes(one) for one in operands):
                return completed(node, unbounded, None, None)
            return completed(node, unbounded, unbounded, unbounded)
        if Affine.of(node, self.values) is None:
            self._depth[node] += 1
            for operand in operands:
                self._refine(operand, node)
        elif operator_of(node) in LAYERS or len(operands) > 1:
            self._depth[node] += 1
        args, _ = self.arguments(node, self.values.__getitem__)
        # Filed before any row passes, as only then all of what is known of its operands is there.
        found = self.values[node] = self._passed(node, rule, args)
        if self.pair.form_of(node) is None:
            self.loose.setdefault(place_of(node))
        return found

    def _passed(self, node: fx.Node, rule: Rule, args: list[Any]) -> Any:
        """What the operator's rules for intervals say, box by box."""
        held = [self.values[one] for one in node.all_input_nodes]
        changes = any(map(self._changes, node.all_input_nodes))
        boxed = [one for one in held if isinstance(one, Twin)]
        if boxed and rule is not ELEMENTWISE:
            return completed(node, *box_by_box(node, rule, args, boxed, changes))
        found = ruled(node, rule, args, changes)
        return completed(node, *(found if boxed else (over(one, self._boxes) for one in found)))

    def _moved(self, node: fx.Node) -> Weights:
        """Weights in another shape are weights still."""
        args, kwargs = self.arguments(node, self.values.__getitem__)
        first, second = (self.apply(node, side_of(args, one), kwargs) for one in SIDES)
        changed = any(map(self._changes, node.all_input_nodes))
        return Weights(first, second if changed else first)

    def _changes(self, node: fx.Node) -> bool:
        """Whether the networks' values differ."""
        held = self.values.get(node)
        parts = held if isinstance(held, tuple) else (held,)
        return any(one is not None and one.change is not None for one in parts)

    def _refine(self, node: fx.Node, reader: fx.Node) -> None:
        """Meets what is known of a value with what back-substitution says."""
        twin = self.values.get(node)
        source = node.args[0] if operator_of(node) == "getitem" else node
        if not isinstance(twin, Twin) or node in self._refined or self._depth[node] < 2:
            return
        self._refined.add(node)
        if node.op == "placeholder" or Affine.of(source, self.values) is None:  # type: ignore[arg-type]
            return  # the range of a function over the best known ends is as good
        below = corner(reader) if rule_of(reader) is ELEMENTWISE else None
        first, second = (_open(one, below) for one in (twin.first, twin.second))
        found = self._met(self._alone[0], node, twin.first, first)
        if twin.change is None:
            self.values[node] = Twin(found, found, None)
            return
        later = self._met(self._alone[1], node, twin.second, second)
        # Where both signs are known now, no more is needed of the difference than its range.
        either = _open(found, below) | _open(later, below)
        change = self._met(self.pair, node, twin.change, first & second & either, change=True)
        self.values[node] = twin_of(found, later, change)

    def change_of(self, node: fx.Node) -> Interval:
        """What is known of the change of a value, met with what back-substitution says.

        As one would measure it: with the rounding of two values subtracted.
        """
        twin: Twin = self.values[node]
        everywhere = torch.ones_like(twin.first.lower, dtype=torch.bool)
        found = self._met(self.pair, node, twin.difference, everywhere, change=True)
        return found.widened(ROUNDING * magnitudes(twin))

    def lead(self, node: fx.Node, winners: Tensor) -> Tensor:
        """By how much a class is ahead of all others in both networks, at least; (boxes,).

        Args:
            node: its value is one row of classes, (boxes, 1, K).
            winners: the class for each box, (boxes,).
        """
        twin: Twin = self.values[node]
        count = twin.first.lower.shape[-1]
        others = torch.eye(count, dtype=torch.float64, device=self.device)
        rows = (others[:, None] - others[winners][None])[:, :, None]  # of z_j − z_k
        ends = [self._ahead_by(twin.first, winners), self._ahead_by(twin.second, winners)]
        for pair, end in zip(self._alone, ends, strict=True):
            found = -pair.upper_bound(node, Rows(rows))
            end.copy_(torch.maximum(end, found.scatter(0, winners[None], torch.inf).amin(0)))
        return torch.minimum(*ends)

    def _ahead_by(self, x: Interval, winners: Tensor) -> Tensor:
        """The same by intervals."""
        own = x.lower[:, 0].gather(1, winners[:, None])[:, 0]
        rest = x.upper[:, 0].scatter(1, winners[:, None], -torch.inf).amax(1)
        return own - rest

    def _met(
        self, pair: Pair, node: fx.Node, x: Interval, asked: Tensor, *, change: bool = False
    ) -> Interval:
        """Ends of the entries that are asked for, box by box, by back-substitution."""
        asked = asked.flatten(1)
        sizes = [_numbers(one) for one in self._ancestors(node)]
        count = int(asked.sum(1).max())
        if not count or count * sum(sizes) * self._boxes > self._effort:
            return x
        lower, upper = x.lower.flatten(1), x.upper.flatten(1)
        # Those that are asked for first, (boxes, count); of boxes that ask for fewer some others.
        entries = asked.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        if count == asked.shape[1]:
            entries = entries[:1]  # the same rows for all boxes
        most = max(1, int(MEMORY / (max(sizes) * self._boxes)))
        shape = x.lower.shape[1:]
        for part in torch.split(entries, most, 1):
            ones = x.lower.new_zeros(part.shape[1], len(part), shape.numel())
            ones.scatter_(2, part.T[:, :, None], 1.0)
            rows = torch.cat([ones, -ones]).view(-1, len(part), *shape)
            which = Rows(torch.zeros_like(rows), rows) if change else Rows(rows)
            high, low = pair.upper_bound(node, which).expand(-1, self._boxes).chunk(2)
            places = part.expand(self._boxes, -1)
            lower, upper = lower.scatter(1, places, -low.T), upper.scatter(1, places, high.T)
        return x.meet(Interval(lower.view_as(x.lower), upper.view_as(x.upper)))

    def _ancestors(self, node: fx.Node) -> list[fx.Node]:
        """All values that lie in front of one, and itself."""
        found: dict[fx.Node, None] = {}
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one not in found and isinstance(self.values.get(one), Twin | tuple):
                found[one] = None
                waiting.extend(one.all_input_nodes)
        return list(found)


def apart(one: tuple[Bounds, fx.Node], other: tuple[Bounds, fx.Node]) -> Interval:
    """The change between the outputs of two graphs that read the same inputs.

    Rows of both, carried back to the inputs, are added up there.
    """
    (first, before), (second, after) = one, other
    held, later = first.values[before].first, second.values[after].first
    x: Interval = later - held
    shape = x.lower.shape[1:]
    ones = torch.eye(shape.numel(), dtype=torch.float64, device=first.device)
    ends = []
    for sign in (1.0, -1.0):
        rows = Rows(sign * ones.view(-1, 1, *shape))
        onto, total = second.pair.substituted(after, rows)
        minus, added = first.pair.substituted(before, Rows(-rows.first))
        for node, same in zip(_inputs(first), _inputs(second), strict=True):
            if node in minus:
                onto[same] = onto[same] + minus[node] if same in onto else minus[node]
        found = second.pair.at_inputs(onto, total + added)
        ends.append(found.expand(-1, len(x.lower)).T.reshape(x.lower.shape))
    upper, lower = ends
    sizes = held.magnitude + later.magnitude
    return x.meet(Interval(-lower, upper)).widened(ROUNDING * sizes)


def _inputs(bounds: Bounds) -> list[fx.Node]:
    return [one for one in bounds.network.nodes if one.name in bounds.network.inputs]


class _Alone(Mapping[fx.Node, Any]):
    """Of the values of two networks those of one, as if both were that one."""

    def __init__(self, values: Mapping[fx.Node, Any], side: str) -> None:
        self._values, self._side = values, side

    def __getitem__(self, node: fx.Node) -> Any:
        return self._of(self._values[node])

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _of(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(None if one is None else self._of(one) for one in value)
        one = getattr(value, self._side)
        return Twin(one, one, None) if isinstance(value, Twin) else Weights(one, one)


def _numbers(node: fx.Node) -> int:
    value = node.meta["val"]
    return int((value[0] if isinstance(value, tuple | list) else value).numel())


def _open(x: Interval, below: float | None) -> Tensor:
    """Where a function bends within an interval; everywhere, where nothing is known of it."""
    if below is None:
        return torch.ones_like(x.lower, dtype=torch.bool)
    return (x.lower < 0) & (x.upper > 0)
