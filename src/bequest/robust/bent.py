"""Functions of one element: rows of their results as rows of what they read, by lines above."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from bequest.robust import curves
from bequest.robust.intervals import STEP, summing
from bequest.robust.lines import Lines, closest, lines_of, lines_of_change
from bequest.robust.rows import Handed, Rows, dot, magnitudes, margin
from bequest.robust.twins import Twin


class Bent:
    """f in both networks, and δ = f(z′) − f(z) between its flattest and steepest slope times Δ.

    Args:
        node: the operator.
        values: node → Twin, (boxes, *shape).
    """

    def __init__(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        self.operand = node.all_input_nodes[0]
        self.twin: Twin = values[self.operand]
        self.first = lines_of(node, self.twin.first)
        self.second = self.change = self.first
        reach, offset = self.first.reach, self.first.offset
        if self.twin.change is not None:
            made = values[node][0] if isinstance(values[node], tuple) else values[node]
            slopes = curves.slopes(node, self.twin.first.hull(self.twin.second))
            sloped = lines_of_change(slopes, self.twin.change, curves.jump(node))
            level = Lines.between(made.difference)
            self.second = lines_of(node, self.twin.second)
            self.change = closest(sloped, level, self.twin.change.centre)
            reach = reach + self.second.reach + self.change.reach
            offset = offset + self.second.offset + self.change.offset
        terms = self.twin.first.lower[0].numel()
        size = magnitudes(self.twin) + self.twin.difference.magnitude
        self.slack = 16 * STEP * reach * size + 2 * summing(terms) * offset

    def handed(self, held: Mapping[int | None, Rows]) -> Handed:
        """A·f(z) + D·δ = D·f(z′) + (A − D)·f(z) = A·f(z′) + (D − A)·δ.

        Each is bounded by lines; entry by entry the way counts that is least in the middle.
        """
        rows = held[None] if None in held else held[0]
        A, D = rows.first, rows.change
        total = margin(A, self.slack)
        if D is None or self.twin.change is None:
            slope, offset = _above(A, self.first)
            return [(self.operand, Rows(slope))], total + offset
        total = total + margin(D, self.slack)
        rest, zero = A - D, torch.zeros_like(A)
        own, later, delta = A, zero, D
        least = self._first(A) + self._change(D)
        ways = (
            (self._first(rest) + self._second(D), (rest, D, zero)),
            (self._second(A) + self._change(-rest), (zero, A, -rest)),
        )
        for middle, (one, two, three) in ways:
            less = middle < least
            least = torch.where(less, middle, least)
            own, later = torch.where(less, one, own), torch.where(less, two, later)
            delta = torch.where(less, three, delta)
        value, added = _above(own, self.first)
        second, more = _above(later, self.second)
        slope, most = _above(delta, self.change)
        total = total + added + more + most
        return [(self.operand, Rows(value + second, second + slope))], total

    def _first(self, rows: Tensor) -> Tensor:
        return _worth(rows, self._middles[0])

    def _second(self, rows: Tensor) -> Tensor:
        return _worth(rows, self._middles[1])

    def _change(self, rows: Tensor) -> Tensor:
        return _worth(rows, self._middles[2])

    @cached_property
    def _middles(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Values in the middle of the lines of f(z), f(z′) and δ."""
        assert self.twin.change is not None
        z, change = self.twin.first.centre, self.twin.change.centre
        points = (self.first, z), (self.second, z + change), (self.change, change)
        return tuple((lines.lower.at(x), lines.upper.at(x)) for lines, x in points)


def _worth(rows: Tensor, middles: tuple[Tensor, Tensor]) -> Tensor:
    """Rows times the upper of two values where they are positive, else times the lower."""
    return torch.maximum(rows * middles[0], rows * middles[1]).nan_to_num_(0.0, torch.inf)


def _above(rows: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """Rows times the upper line where they are positive, else times the lower one.

    Returns:
        Rows of what is read, and what is added to each, (R, B).
    """
    up = rows.clamp(min=0)
    down = rows - up
    slope = torch.addcmul(up * lines.upper.slope, down, lines.lower.slope)
    upper, lower = lines.upper.intercept, lines.lower.intercept
    if lines.finite:
        return slope, dot(up, upper) + dot(down, lower)
    each = (up * upper).nan_to_num(0.0, torch.inf) + (down * lower).nan_to_num(0.0, torch.inf)
    return slope, each.flatten(2).sum(2)
