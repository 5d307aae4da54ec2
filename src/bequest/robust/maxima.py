"""Maxima of windows: rows of the results as rows of what is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, fx

from bequest.graph.geometry import arguments
from bequest.robust.intervals import STEP, TINY, Interval, summing
from bequest.robust.rows import Handed, Rows, magnitudes
from bequest.robust.twins import Twin


class _Chosen(NamedTuple):
    """Lines above and below the maxima of one network, (boxes, channels, windows) each."""

    above: Tensor
    """The place in the image of the entry that the upper line reads."""
    slope: Tensor
    intercept: Tensor
    below: Tensor
    """The place of the entry that is the lower line."""
    middles: tuple[Tensor, Tensor]
    """Values of the lower and the upper line in the middle of the box."""


class MaxPool:
    """Above: the chord of max(z_k, M) over z_k, where z_k can be greatest and M is above the rest.

    Below: the z_k that is greatest in the middle. Exact where one z_k is above all others.

    Args:
        node: the operator.
        values: node → Twin, (boxes, *shape).
    """

    def __init__(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        self.node, self.operand = node, node.all_input_nodes[0]
        self.twin: Twin = values[self.operand]
        made = values[node][0] if isinstance(values[node], tuple) else values[node]
        self.delta: Interval = made.difference
        image = self.twin.first.lower.shape[-2:]
        places = torch.arange(image.numel(), dtype=torch.float64, device=made.first.lower.device)
        self.places = self._windows(places.view(1, 1, *image), 0.0).long()
        self.first = self._lines(self.twin.first)
        self.second = self.first if self.twin.change is None else self._lines(self.twin.second)
        largest = (magnitudes(self.twin) + self.twin.difference.magnitude).flatten(1).amax(1)
        self.slack = (16 * STEP + 4 * summing(self.delta.lower[0].numel())) * largest

    @classmethod
    def of(cls, node: fx.Node, values: Mapping[fx.Node, Any]) -> MaxPool | None:
        """None where windows reach beyond the padding."""
        return None if arguments(node)["ceil_mode"] else cls(node, values)

    def handed(self, held: Mapping[int | None, Rows]) -> Handed:
        """Entry by entry the way that is least in the middle, as for functions of one element."""
        rows = held[None] if None in held else held[0]
        A = rows.first.flatten(2, 3).flatten(3)
        margin = rows.sizes.flatten(2).sum(2) * self.slack
        if rows.change is None or self.twin.change is None:
            first, offset = self._scattered(A, self.first)
            return [(self.operand, Rows(first))], offset + margin
        D = rows.change.flatten(2, 3).flatten(3)
        zero = torch.zeros_like(A)
        best: tuple[Tensor, ...] | None = None
        for own, later, delta in ((A, zero, D), (A - D, D, zero), (zero, A, D - A)):
            middle = _line(own, self.first.middles) + _line(later, self.second.middles)
            middle = middle + _line(delta, self._ends)
            found: tuple[Tensor, ...] = (middle, own, later, delta)
            if best is not None:
                less = middle < best[0]
                found = tuple(torch.where(less, *pair) for pair in zip(found, best, strict=True))
            best = found
        assert best is not None
        _, own, later, delta = best
        first, offset = self._scattered(own, self.first)
        second, added = self._scattered(later, self.second)
        total = offset + added + _line(delta, self._ends).flatten(2).sum(2) + margin
        return [(self.operand, Rows(first + second, second))], total

    @property
    def _ends(self) -> tuple[Tensor, Tensor]:
        lower, upper = self.delta.lower, self.delta.upper
        return lower.flatten(1, 2).flatten(2), upper.flatten(1, 2).flatten(2)

    def _windows(self, x: Tensor, outside: float) -> Tensor:
        """(N, C, H, W) → (N, C, entries of a window, windows)."""
        given = arguments(self.node)
        size, stride, padding, dilation = (
            _two(one)
            for one in (
                given["kernel_size"],
                given["stride"] or given["kernel_size"],
                given["padding"],
                given["dilation"],
            )
        )
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=outside)
        found = F.unfold(x.flatten(0, 1)[:, None], size, dilation, 0, stride)
        return found.view(*x.shape[:2], *found.shape[1:])

    def _lines(self, x: Interval) -> _Chosen:
        low, high = (self._windows(end.flatten(0, 1), -torch.inf) for end in (x.lower, x.upper))
        top, above = high.max(2, keepdim=True)
        rest = high.scatter(2, above, -torch.inf).amax(2, keepdim=True)
        bottom = low.gather(2, above)
        slope = ((top - rest) / (top - bottom)).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)
        intercept = torch.maximum(rest - slope * bottom, top - slope * top)
        intercept = intercept + 8 * STEP * (top.abs() + bottom.abs()) + TINY
        intercept = intercept.nan_to_num(torch.inf, torch.inf, torch.inf)
        alone = bottom >= rest
        slope = torch.where(alone, 1.0, slope)
        intercept = torch.where(alone, 0.0, intercept)
        middle = low / 2 + high / 2
        best, below = middle.max(2, keepdim=True)
        reached = slope * middle.gather(2, above) + intercept
        places = self.places.expand_as(low)
        return _Chosen(
            above=places.gather(2, above)[:, :, 0],
            slope=slope[:, :, 0],
            intercept=intercept[:, :, 0],
            below=places.gather(2, below)[:, :, 0],
            middles=(best[:, :, 0], reached[:, :, 0]),
        )

    def _scattered(self, rows: Tensor, lines: _Chosen) -> tuple[Tensor, Tensor]:
        """Rows of the image, and what is added."""
        up, down = rows.clamp(min=0), rows.clamp(max=0)
        shape = self.twin.first.lower.shape
        boxes = max(rows.shape[1], shape[0])
        image = rows.new_zeros(len(rows), boxes, rows.shape[2], shape[-2:].numel())
        for part, places in ((up * lines.slope, lines.above), (down, lines.below)):
            values = part.expand(-1, boxes, -1, -1)
            image.scatter_add_(3, places.expand_as(values), values)
        offset = (up * lines.intercept).nan_to_num(0.0, torch.inf, -torch.inf)
        return image.view(len(rows), boxes, *shape[1:]), offset.flatten(2).sum(2)


def _two(value: Any) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (values * 2)[:2] if len(values) == 1 else values


def _line(rows: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Rows times the upper of two values where they are positive, else times the lower."""
    return torch.maximum(rows * ends[0], rows * ends[1]).nan_to_num(0.0, torch.inf, -torch.inf)
