"""Functions of one element: rows of their results as rows of what they read, by lines above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from bequest.robust import curves
from bequest.robust.intervals import STEP, summing
from bequest.robust.lines import Lines, closest, lines_of, lines_of_change
from bequest.robust.rows import Handed, Rows, dot, magnitudes
from bequest.robust.twins import Twin


class _Plane(NamedTuple):
    """slope·(what is read) + offset, entry by entry, above rows of a function's results."""

    slope: Tensor
    offset: Tensor


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
        margin = dot(rows.sizes, self.slack)
        if rows.change is None or self.twin.change is None:
            plane = _above(rows.first, self.first)
            return [(self.operand, Rows(plane.slope))], margin + plane.offset.flatten(2).sum(2)
        z, change = self.twin.first.centre, self.twin.change.centre
        best: tuple[Tensor, ...] | None = None
        for slope, grown, offset in self._ways(rows.first, rows.change):
            middle = slope * z + grown * change + offset
            if best is None:
                best = middle, slope, grown, offset
                continue
            less = middle < best[0]
            found = (middle, slope, grown, offset)
            best = tuple(torch.where(less, *pair) for pair in zip(found, best, strict=True))
        assert best is not None
        _, slope, grown, offset = best
        return [(self.operand, Rows(slope, grown))], margin + offset.flatten(2).sum(2)

    def _ways(self, A: Tensor, D: Tensor) -> Any:
        """(rows of z, rows of Δ, offset) of each."""
        value, delta = _above(A, self.first), _above(D, self.change)
        yield value.slope, delta.slope, value.offset + delta.offset
        later, rest = _above(D, self.second), _above(A - D, self.first)
        yield later.slope + rest.slope, later.slope, later.offset + rest.offset
        later, delta = _above(A, self.second), _above(D - A, self.change)
        yield later.slope, later.slope + delta.slope, later.offset + delta.offset


def _above(rows: Tensor, lines: Lines) -> _Plane:
    """Rows times the upper line where they are positive, else times the lower one."""
    up = rows > 0
    slope = rows * torch.where(up, lines.upper.slope, lines.lower.slope)
    offset = rows * torch.where(up, lines.upper.intercept, lines.lower.intercept)
    return _Plane(slope, offset if lines.finite else offset.nan_to_num(0.0, torch.inf, -torch.inf))
