"""Back-substitution: a linear function of one value as a linear function of the inputs.

Two networks of one graph are looked at together; a row A·z + D·Δ of a value z of the first and of
its difference Δ = z′ − z in the second is to be bounded from above. From the last operator to the
first it is written in what the operator reads: exactly where the operator is affine, by lines above
it where it is bent. An operator of neither kind ends it: what is known of its result takes its
place. At the inputs Δ is zero, and A·x is largest at a corner of the box.

This is DeepPoly's and CROWN's back-substitution (Singh et al. 2019; Zhang et al. 2018) with the
difference as a variable of its own (ReluDiff, NeuroDiff: Paulsen et al. 2020). Every step adds what
float64 can have rounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from bequest.graph.trace import operator_of
from bequest.robust import curves
from bequest.robust.affine import Affine
from bequest.robust.bent import Bent
from bequest.robust.intervals import STEP, TINY
from bequest.robust.maxima import MaxPool
from bequest.robust.rows import Rows, greatest
from bequest.robust.rules import rule_of
from bequest.robust.rules.elementwise import ELEMENTWISE
from bequest.robust.shares import Softmax
from bequest.robust.twins import Twin

_JUNCTIONS: dict[str, Any] = {
    "max_pool2d": MaxPool.of,
    "max_pool2d_with_indices": MaxPool.of,
    "softmax": Softmax,
    "_softmax": Softmax,
}


class Pair:
    """What is known of every value of two networks over B boxes of inputs.

    Args:
        nodes: of the graph, in order.
        values: node → Twin with boxes in front, a tuple of them, or Weights; it may grow.
    """

    def __init__(self, nodes: Sequence[fx.Node], values: Mapping[fx.Node, Any]) -> None:
        self.nodes, self.values = nodes, values
        self._forms: dict[fx.Node, Any] = {}

    def form_of(self, node: fx.Node) -> Any:
        """How rows pass an operator; None where they don't."""
        if node not in self._forms:
            self._forms[node] = self._found(node)
        return self._forms[node]

    def _found(self, node: fx.Node) -> Any:
        rule = rule_of(node)
        if node.op == "placeholder" or rule is None:
            return None
        affine = Affine.of(node, self.values)
        if affine is not None:
            return affine
        if rule is ELEMENTWISE and not curves.jumps(node):
            return Bent(node, self.values)
        form = _JUNCTIONS.get(operator_of(node))
        return None if form is None else form(node, self.values)

    def substituted(self, start: fx.Node, rows: Rows) -> tuple[dict[fx.Node, Rows], Tensor]:
        """Rows of one value as rows of the inputs, plus a number each, (R, B or 1)."""
        waiting: dict[fx.Node, dict[int | None, Rows]] = defaultdict(dict)
        waiting[start][None] = rows
        inputs: dict[fx.Node, Rows] = {}
        total = rows.first.new_zeros(rows.first.shape[:2])
        for node in reversed(self.nodes[: self.nodes.index(start) + 1]):
            held = waiting.pop(node, None)
            if held is None:
                continue
            if operator_of(node) == "getitem":
                _put(waiting, node.args[0], node.args[1], held[None])  # type: ignore[arg-type]
            elif node.op == "placeholder" and isinstance(self.values[node], Twin):
                inputs[node] = held[None]
            elif (form := self.form_of(node)) is not None:
                handed, added = form.handed(held)
                total = _summed(total, added)
                for operand, one in handed:
                    _put(waiting, operand, None, one)
            else:
                for place, one in held.items():
                    total = _summed(total, greatest(one, self._value(node, place)))
        return inputs, total

    def upper_bound(self, start: fx.Node, rows: Rows) -> Tensor:
        """At least the greatest values of the rows, (R, B or 1); ∞ where nothing is known."""
        inputs, total = self.substituted(start, rows)
        return self.at_inputs(inputs, total)

    def at_inputs(self, inputs: Mapping[fx.Node, Rows], total: Tensor) -> Tensor:
        """The greatest values of rows of the inputs, plus what was added on the way there."""
        for node, rows in inputs.items():
            total = _summed(total, greatest(rows, self.values[node]))
        return (total + TINY).nan_to_num(torch.inf, torch.inf, torch.inf)

    def _value(self, node: fx.Node, place: int | None) -> Any:
        value = self.values[node]
        return value if place is None else value[place]


def _summed(one: Tensor, other: Tensor) -> Tensor:
    """At least their sum."""
    return one + other + STEP * (one.abs() + other.abs())


def _put(
    waiting: dict[fx.Node, dict[int | None, Rows]], node: fx.Node, place: int | None, rows: Rows
) -> None:
    held = waiting[node]
    held[place] = rows if place not in held else held[place] + rows
