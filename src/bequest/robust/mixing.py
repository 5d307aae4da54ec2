"""Lines that are chosen for each row: mixtures of several, improved by gradient descent.

Every convex combination of planes above a function is above it. :class:`Bent` takes, entry by
entry, the plane that is least in the middle; which one makes the least bound depends on all that
lies in front of it. So the weights of a few planes descend along the gradient of the bound itself,
which is what α-CROWN (Xu et al. 2021) does with the slope of one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx

from bequest.robust import curves
from bequest.robust.bent import Bent
from bequest.robust.intervals import STEP, Interval, summing
from bequest.robust.lines import Line, Lines, corner, lines_of
from bequest.robust.rows import Handed, Rows, magnitudes, margin
from bequest.robust.substitution import Pair

RATE = 1.0
"""First step of the logarithms of the weights, which then falls to nothing."""
SURE = 1.5
"""By how much the logarithm of the first choice is ahead of the others in the beginning."""


class Mixed(Bent):
    """Rows are bounded by planes with weights; those of the closest lines, and of others.

    Attributes:
        mixes: whether there are weights; else it is as any function of one element.
        logits: (planes, R, B, *shape), logarithms of the weights; None = not yet chosen.
    """

    def __init__(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        super().__init__(node, values)
        self.mixes, self.logits = False, cast(Tensor | None, None)
        held = values[node][0] if isinstance(values[node], tuple) else values[node]
        first = others_of(node, self.twin.first)
        second = change = first
        if self.twin.change is not None:
            second = others_of(node, self.twin.second)
            change = Lines.between(held.difference)
        self._sets = (self.first, self.second, self.change), (first, second, change)
        reach = sum(one.reach for each in self._sets for one in each)
        offset = sum(one.offset for each in self._sets for one in each)
        size = magnitudes(self.twin) + self.twin.difference.magnitude
        terms = 2 * summing(self.twin.first.lower[0].numel())
        self.slack = 32 * STEP * reach * size + terms * offset

    def handed(self, held: Mapping[int | None, Rows]) -> Handed:
        """The weighted planes; in the beginning the one that is least in the middle leads."""
        if not self.mixes:
            return super().handed(held)
        rows = held[None] if None in held else held[0]
        A, D = rows.first, rows.change
        D = None if self.twin.change is None else D
        planes = list(self._planes(A, D))
        slopes, grown, offsets = (torch.stack(each) for each in zip(*planes, strict=True))
        if self.logits is None:
            middle = slopes * self.twin.first.centre + offsets
            if self.twin.change is not None:
                middle = middle + grown * self.twin.change.centre
            best = middle.detach().argmin(0, keepdim=True)
            self.logits = torch.zeros_like(middle).detach().scatter_(0, best, SURE)
        weights = self.logits.softmax(0)
        slope, change, offset = ((weights * each).sum(0) for each in (slopes, grown, offsets))
        total = margin(A, self.slack) + offset.flatten(2).sum(2)
        if D is None:
            return [(self.operand, Rows(slope))], total
        return [(self.operand, Rows(slope, change))], total + margin(D, self.slack)

    def _planes(self, A: Tensor, D: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(rows of z, rows of Δ, offsets) of each."""
        for first, second, change in self._sets:
            if D is None:
                slope, offset = _plane(A, first)
                yield slope, torch.zeros_like(slope), offset
                continue
            rest, zero = A - D, torch.zeros_like(A)
            for parts in ((A, zero, D), (rest, D, zero), (zero, A, -rest)):
                planes = map(_plane, parts, (first, second, change))
                (own, a), (later, b), (delta, c) = planes
                yield own + later, later + delta, a + b + c


class Descending(Pair):
    """Back-substitution whose lines are improved for every row.

    Args:
        nodes: of the graph, in order.
        values: as of a :class:`Pair`.
        steps: of descent.
    """

    def __init__(self, nodes: Sequence[fx.Node], values: Mapping[fx.Node, Any], steps: int) -> None:
        super().__init__(nodes, values)
        self._steps = steps

    def _found(self, node: fx.Node) -> Any:
        form = super()._found(node)
        return Mixed(node, self.values) if isinstance(form, Bent) else form

    def upper_bound(self, start: fx.Node, rows: Rows) -> Tensor:
        """The least of the bounds on the way down, (R, B or 1)."""
        best = super().upper_bound(start, rows)
        if not bool(best.isfinite().all()):
            return best
        found = [one for one in self._forms.values() if isinstance(one, Mixed)]
        for form in found:
            form.mixes, form.logits = True, None
        best = torch.minimum(best, super().upper_bound(start, rows))
        forms = [one for one in found if one.logits is not None]
        if forms:
            best = torch.minimum(best, self._descended(start, rows, forms))
        for form in found:
            form.mixes = False
        return best

    def _descended(self, start: fx.Node, rows: Rows, forms: Sequence[Mixed]) -> Tensor:
        best = rows.first.new_tensor(torch.inf)
        logits: list[Tensor] = [one.logits for one in forms]  # type: ignore[misc]
        moments = [[torch.zeros_like(one) for one in logits] for _ in range(2)]
        for step in range(self._steps):
            with torch.enable_grad():
                leaves = [one.detach().requires_grad_() for one in logits]
                for form, leaf in zip(forms, leaves, strict=True):
                    form.logits = leaf
                bound = super().upper_bound(start, rows)
                slopes = torch.autograd.grad(bound.sum(), leaves)
            best = torch.minimum(best, bound.detach())
            rate = RATE * (1 - step / self._steps)
            for one, slope, mean, square in zip(logits, slopes, *moments, strict=True):
                mean.lerp_(slope, 0.1)
                square.lerp_(slope.square(), 0.01)
                scale = (square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-30
                one.sub_(rate * mean / (1 - 0.9 ** (step + 1)) / scale)
        for form, one in zip(forms, logits, strict=True):
            form.logits = one
        return torch.minimum(best, super().upper_bound(start, rows))


def pair_of(nodes: Sequence[fx.Node], values: Mapping[fx.Node, Any], steps: int) -> Pair:
    """Back-substitution, with so many steps of descent for each row."""
    return Descending(nodes, values, steps) if steps else Pair(nodes, values)


def others_of(node: fx.Node, x: Interval) -> Lines:
    """Other lines than the closest: below a corner its other piece, else the range."""
    below = corner(node)
    if below is None:
        return Lines.between(curves.image(node, x))
    found = lines_of(node, x)
    known = x.lower.isfinite() & x.upper.isfinite() & (x.lower < 0) & (x.upper > 0)
    slope = torch.where(known, 1 + below - found.lower.slope, found.lower.slope)
    return Lines(Line(slope, found.lower.intercept), found.upper)


def _plane(rows: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """Rows of what is read and offsets, entry by entry, of lines above rows of the results."""
    up = rows.clamp(min=0)
    down = rows - up
    slope = up * lines.upper.slope + down * lines.lower.slope
    above = (up * lines.upper.intercept).nan_to_num(0.0, torch.inf)
    return slope, above + (down * lines.lower.intercept).nan_to_num(0.0, torch.inf)
