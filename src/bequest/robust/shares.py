"""Softmax: rows of the shares as rows of what is read, by the mean value theorem.

p(z) = p(c) + J(ξ)·(z − c) with c the middle of the box, and p(z′) − p(z) = J(ξ)·Δ. The entries of
J are p_i·(1 − p_i) and −p_i·p_j, within ends that follow from those of p. So J is its middle plus
something that is within a margin, which counts times the radius of the box, or times |Δ|.

Shares add up to 1, and their changes to 0: A·p = λ + (A − λ)·p, for the λ that makes least of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from bequest.graph.geometry import arguments
from bequest.robust.intervals import STEP, Interval
from bequest.robust.rows import Handed, Rows, magnitudes
from bequest.robust.twins import Twin

SLACK = 1e-12
"""What the shares and their slopes are off by rounding, at most."""


class _Sloped(NamedTuple):
    """middle + slope·(what is read), within a margin; the softmax dimension is the last."""

    slope: Tensor
    middle: Tensor
    margin: Tensor
    centre: Tensor
    """Its value in the middle of what is read."""


class Softmax:
    """Of a share whose linear form is no closer than its range, the range is taken.

    Args:
        node: the operator.
        values: node → Twin, (boxes, *shape).
    """

    def __init__(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        self.operand = node.all_input_nodes[0]
        self.twin: Twin = values[self.operand]
        made: Twin = values[node]
        rank = made.first.lower.ndim - 1
        self.dim = int(arguments(node)["dim"]) % rank - rank
        shares = made.first.hull(made.second)
        low, high = self._last(shares.lower), self._last(shares.upper)
        outer_low, outer_high = (end[..., None] * end[..., None, :] for end in (low, high))
        own = torch.stack([low * (1 - low), high * (1 - high)])
        turns = (low <= 0.5) & (high >= 0.5)
        peak = torch.where(turns, 0.25, own.amax(0))
        least, most = (-outer_high).clone(), (-outer_low).clone()
        least.diagonal(dim1=-2, dim2=-1).copy_(own.amin(0))
        most.diagonal(dim1=-2, dim2=-1).copy_(peak)
        self.slope, self.reach = (least + most) / 2, (most - least) / 2 + SLACK
        centre = self._last(self.twin.first.centre)
        begins = centre.softmax(-1) - (self.slope @ centre[..., None])[..., 0]
        radius = self._last(self.twin.first.radius)
        self.first = self._better(begins, radius, made.first, centre, centre)
        if self.twin.change is not None:
            size, zero = self._last(self.twin.change.magnitude), torch.zeros_like(centre)
            middle = self._last(self.twin.change.centre)
            self.change = self._better(zero, size, made.difference, size, middle)

    def handed(self, held: Mapping[int | None, Rows]) -> Handed:
        """A·p(z) + D·(p(z′) − p(z))."""
        rows = held[None] if None in held else held[0]
        first, total = self._through(rows.first, self.first, 1.0)
        if rows.change is None or self.twin.change is None:
            return [(self.operand, Rows(first))], total
        change, added = self._through(rows.change, self.change, 0.0)
        return [(self.operand, Rows(first, change))], total + added

    def _last(self, x: Tensor) -> Tensor:
        return x.movedim(self.dim, -1)

    def _better(
        self, begins: Tensor, size: Tensor, ends: Interval, scale: Tensor, at: Tensor
    ) -> _Sloped:
        margin = (self.reach @ size[..., None])[..., 0]
        sizes = self._last(magnitudes(self.twin))
        rounding = (self.slope.abs() @ (sizes + scale.abs())[..., None])[..., 0]
        margin = margin * (1 + SLACK) + SLACK + 64 * size.shape[-1] * STEP * rounding
        radius = self._last(ends.radius) * (1 + SLACK) + SLACK
        level = ~(margin < radius)
        slope = self.slope.masked_fill(level[..., None], 0.0)
        middle = torch.where(level, self._last(ends.centre), begins)
        reached = middle + (slope @ at[..., None])[..., 0]
        return _Sloped(slope, middle, torch.where(level, radius, margin), reached)

    def _through(self, rows: Tensor, form: _Sloped, total: float) -> tuple[Tensor, Tensor]:
        last = rows.movedim(self.dim, -1)
        base = _base(last, form, total)
        last = last - base
        found = (last[..., None, :] @ form.slope)[..., 0, :]
        added = last * form.middle + last.abs() * (form.margin + SLACK)
        base = total * (base + SLACK * base.abs())
        return found.movedim(-1, self.dim), added.flatten(2).sum(2) + base.flatten(2).sum(2)


def _base(rows: Tensor, form: _Sloped, total: float) -> Tensor:
    """λ of the least λ·total + (rows − λ)·centre + |rows − λ|·margin; the last dimension is 1.

    That is convex in λ, and its slope changes at the rows alone, by twice their margin.
    """
    ranked, order = rows.expand(-1, len(form.margin), *rows.shape[2:]).sort(-1)
    passed = 2 * form.margin.expand_as(ranked).gather(-1, order).cumsum(-1)
    slope = passed - form.margin.sum(-1, keepdim=True) + total - form.centre.sum(-1, keepdim=True)
    place = (slope < 0).sum(-1, keepdim=True).clamp(max=ranked.shape[-1] - 1)
    return ranked.gather(-1, place)
