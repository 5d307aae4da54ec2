"""How a change of weights changes the output: intervals that hold for every input in the range.

The pruned network is looked at in the shapes of the dense one. A channel that was merged into
another is a channel whose filter was *replaced* by the other's, and nothing else changed: that the
two read the same inputs is in the difference of the filters, (w_a − w_b)·x + b_a − b_b, which is
tighter than the difference of their ranges. A channel that left otherwise is one that nobody reads:
zero columns. Batch norms are folded into the layer before them first, for the same reason.

Both networks and their difference pass the graph together (:mod:`bequest.robust.rules`). After
Meng, Bai, Teo & Dong, "Supervised robustness-preserving data-free neural network pruning"
(arXiv 2204.00783), whose rules these are where both networks' weights agree; the forms for changed
weights and the slopes over the interval at hand are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bequest.errors import ModelError
from bequest.graph.interpreter import Interpreter
from bequest.graph.trace import Network, operator_of, place_of
from bequest.robust.intervals import ROUNDING, Interval
from bequest.robust.rules import Rule, rule_of
from bequest.robust.twins import Twin, Weights

CANDIDATE_MEMORY = 2**22
"""Numbers per tensor when candidates are looked at together: 32 MiB in float64."""

Known = dict[fx.Node, Any]
"""Node → Interval, a tuple of them, or the tensor of a parameter."""


@dataclass(frozen=True)
class Values:
    """The intervals of every value of one network over the input range.

    Attributes:
        network: the traced graph.
        known: node → interval.
        gaps: operators without an interval rule, by place; what follows them is unbounded.
        device: of every tensor.
    """

    network: Network
    known: Known
    gaps: tuple[str, ...]
    device: torch.device


def values(network: Network, tensors: Mapping[str, Tensor], inputs: Sequence[Interval]) -> Values:
    """Passes the input range through a network.

    Args:
        network: the traced graph, of batch size one.
        tensors: qualified name → float64 tensor.
        inputs: an interval per input of the network, in order.
    """
    ranges = _Ranges(network, inputs[0].lower.device, tensors)
    ranges.interpret(inputs)
    return Values(network, ranges.values, tuple(ranges.gaps), ranges.device)


class _Ranges(Interpreter):
    """The interval of every value."""

    keeps = True

    def __init__(
        self, network: Network, device: torch.device, tensors: Mapping[str, Tensor]
    ) -> None:
        super().__init__(network, device)
        self.gaps: dict[str, None] = {}
        self._tensors = tensors

    def tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    def constant(self, tensor: Tensor) -> Tensor | None:
        real = tensor.is_floating_point()
        return tensor.to(self.device, torch.float64) if real else None

    def operator(self, node: fx.Node) -> Any:
        if operator_of(node) == "getitem":
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        rule = rule_of(node)
        if rule is None or not node.all_input_nodes or not fits(rule, node, self.values):
            self.gaps.setdefault(place_of(node))
            return nothing_known(node, self.device)
        args, _ = self.arguments(node, self.values.__getitem__)
        found = rule.value(node, *ranged(args))
        missing = len(node.meta["val"]) - len(found) if isinstance(found, tuple) else 0
        return (*found, *(None,) * missing) if isinstance(found, tuple) else found


def fits(rule: Rule, node: fx.Node, known: Known) -> bool:
    """Whether a rule can read all operands: numbers, and exact ones as weights and statistics."""
    for operand in node.all_input_nodes:
        value = known.get(operand)
        if isinstance(value, Weights):
            value = value.first
        ranged = isinstance(value, Interval | Twin) and not (
            rule.exact and operand in node.args[1:]
        )
        if not ranged and not (isinstance(value, Tensor) and value.is_floating_point()):
            return False
    return True


def ranged(operands: Sequence[Any]) -> Sequence[Any]:
    """The operands, the first tensor as an interval: a parameter can be what an operator reads."""
    for place, one in enumerate(operands):
        if isinstance(one, Interval | Twin):
            break
        if isinstance(one, Tensor):
            return (*operands[:place], Interval(one, one), *operands[place + 1 :])
        if isinstance(one, Weights):
            ranges = Interval(one.first, one.first), Interval(one.second, one.second)
            change = None if one.change is None else one.difference
            return (*operands[:place], Twin(*ranges, change), *operands[place + 1 :])
    return operands


def nothing_known(node: fx.Node, device: torch.device) -> Any:
    """±∞ for each result of an operator."""
    value = node.meta["val"]
    if isinstance(value, Tensor):
        return Interval.unbounded(value.shape, device)
    return tuple(Interval.unbounded(one.shape, device) for one in value)


def output_of(network: Network) -> fx.Node:
    """The node whose value the network returns.

    Raises:
        ModelError: it returns something else than one tensor.
    """
    found = network.output.all_input_nodes
    if len(found) != 1 or not isinstance(found[0].meta["val"], Tensor):
        raise ModelError(
            f"expected a network that returns one tensor, found {len(found)}; wrap it in a module "
            "that returns the one whose change matters"
        )
    return found[0]


def certified_change(first: Values, second: Values) -> tuple[Interval, tuple[str, ...]]:
    """The output of the second network minus that of the first, over the input range.

    Args:
        first: values of the one network.
        second: of another with the same graph and other weights.

    Returns:
        The interval, in the output's shape, and the operators at which the change of a value that
        differs can't be bounded (no rule); the interval is ±∞ wherever they matter.
    """
    changes = _Changes(first, second)
    changes.interpret()
    output: Twin = changes.values[output_of(first.network)]
    if output.change is None:
        return output.difference, tuple(changes.gaps)
    # As one would measure it: the two outputs subtracted.
    rounding = ROUNDING * (output.first.magnitude + output.second.magnitude)
    return output.change.widened(rounding), tuple(changes.gaps)


class _Changes(Interpreter):
    """What is known of every value in two networks.

    Args:
        first: values of the one.
        second: of the other; None = what the changes make of those of the first.
    """

    keeps = True

    def __init__(self, first: Values, second: Values | None = None) -> None:
        super().__init__(first.network, first.device)
        self.gaps: dict[str, None] = {}
        self._first, self._second = first.known, None if second is None else second.known

    def placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> Twin | Weights | None:
        held = self._first.get(node)
        other: Any = held if self._second is None else self._second.get(node)
        if isinstance(held, Tensor):
            return Weights(held, held if torch.equal(held, other) else other)
        return None if held is None else Twin(held, other, None)

    def operator(self, node: fx.Node) -> Any:
        held = self._first.get(node)
        other = None if self._second is None else self._second.get(node)
        return None if held is None else twin_of(held, other, self._change(node))

    def _change(self, node: fx.Node) -> Any:
        """The change at a node; None where nothing that it reads differs."""
        if operator_of(node) == "getitem":
            held = self.values[node.args[0]][node.args[1]]  # type: ignore[index]
            return None if held is None else held.change
        operands = node.all_input_nodes
        if all(self.values[one].change is None for one in operands if one in self.values):
            return None
        rule = rule_of(node)
        if rule is None or not fits(rule, node, self.values):
            self.gaps.setdefault(place_of(node))
            return nothing_known(node, self.device)
        args, _ = self.arguments(node, self.values.__getitem__)
        return rule.change(node, *ranged(args))


def twin_of(first: Any, second: Any, change: Any) -> Any:
    """All that is known at a node, each part bounded by the others."""
    if isinstance(first, tuple):
        count = len(first)
        others = (None,) * count if second is None else second
        changes = () if change is None else change
        parts = zip(first, others, (*changes, *(None,) * (count - len(changes))), strict=True)
        return tuple(None if one is None else twin_of(one, other, c) for one, other, c in parts)
    if change is None:
        return Twin(first, first, None)
    if second is None:
        return Twin(first, first + change, change)
    change = change.meet(second - first)
    return Twin(first, second.meet(first + change), change)


def propagated(start: fx.Node, change: Interval, held: Values) -> Interval:
    """The change at the output that follows from one at a node, for many candidates at once.

    Args:
        start: where values change; nothing else differs.
        change: (candidates, *shape of the node).
        held: the values of the network before the change.

    Returns:
        float64 (candidates, *shape of the output), ±∞ where no bound is known.
    """
    changes = _Changes(held)
    changes.values = {
        node: Weights(value, value) if isinstance(value, Tensor) else twin_of(value, None, None)
        for node, value in held.known.items()
    }
    changes.values[start] = twin_of(held.known[start], None, change)
    changes.interpret(after=start)
    output = output_of(held.network)
    result: Interval = changes.values[output].difference.widened()
    if result.lower.ndim > output.meta["val"].ndim:
        return result
    size = len(change.lower), *result.lower.shape  # the same for all candidates: zero, or unknown
    return Interval(result.lower.expand(size), result.upper.expand(size))
