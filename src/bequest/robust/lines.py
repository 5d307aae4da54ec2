"""Straight lines above and below a function of one element, over an interval.

A line of any slope is above the function when its intercept is at least the greatest value of
f(z) − slope·z. That is bounded piece by piece: over a piece of the interval it exceeds neither what
its left end and the greatest slope there allow, nor what the right end and the least slope do. So
whatever :mod:`bequest.robust.curves` knows the values and slopes of has sound lines. Of a few
slopes each element takes that whose line is closest to the function in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor, fx

from bequest.graph.geometry import arguments
from bequest.graph.trace import operator_of
from bequest.robust import curves
from bequest.robust.intervals import STEP, TINY, Interval

PIECES = 16
"""Into how many an interval is divided; what is lost falls with the square."""


@dataclass(frozen=True)
class Line:
    """z → slope·z + intercept, element by element."""

    slope: Tensor
    intercept: Tensor

    def at(self, z: Tensor) -> Tensor:
        """Its value."""
        return self.slope * z + self.intercept


@dataclass(frozen=True)
class Lines:
    """What lies below and above a function: each element has a line of either kind."""

    lower: Line
    upper: Line

    @classmethod
    def between(cls, ends: Interval) -> Lines:
        """Level lines at the ends of a range."""
        level = torch.zeros_like(ends.lower)
        return cls(Line(level, ends.lower), Line(level, ends.upper))

    @cached_property
    def finite(self) -> bool:
        """Whether all lines are somewhere."""
        return bool(self.offset.isfinite().all())

    @property
    def reach(self) -> Tensor:
        """A number per element that neither |slope| exceeds."""
        return torch.maximum(self.lower.slope.abs(), self.upper.slope.abs())

    @property
    def offset(self) -> Tensor:
        """A number per element that neither |intercept| exceeds."""
        return torch.maximum(self.lower.intercept.abs(), self.upper.intercept.abs())


def lines_of(node: fx.Node, x: Interval) -> Lines:
    """Lines below and above a function of one element where it reads these intervals."""
    below = corner(node)
    found = _touching(node, x) if below is None else _rectified(x, below)
    level = Lines.between(curves.image(node, x))
    known = x.lower.isfinite() & x.upper.isfinite()
    return Lines(
        _where(known & found.lower.intercept.isfinite(), found.lower, level.lower),
        _where(known & found.upper.intercept.isfinite(), found.upper, level.upper),
    )


def lines_of_change(slopes: Interval, change: Interval, jump: float) -> Lines:
    """Lines for f(z + Δ) − f(z) = slope·Δ as functions of Δ, for slopes and Δ within intervals.

    max(m·Δ, M·Δ) is convex and below its chord, min(m·Δ, M·Δ) concave and above its own.

    Args:
        slopes: of f, over all that either network reads.
        change: Δ.
        jump: how far f jumps beside.
    """
    low, high = change.lower, change.upper
    most = [torch.maximum(slopes.lower * end, slopes.upper * end) for end in (low, high)]
    least = [-torch.minimum(slopes.lower * end, slopes.upper * end) for end in (low, high)]
    margin = STEP * 8 * slopes.magnitude * change.magnitude + TINY + jump
    below = _chord(low, high, least[0], least[1], margin)
    return Lines(_negative(below), _chord(low, high, most[0], most[1], margin))


def _chord(low: Tensor, high: Tensor, at_low: Tensor, at_high: Tensor, margin: Tensor) -> Line:
    """Through two points, by a margin above the higher of them."""
    slope = ((at_high - at_low) / (high - low)).nan_to_num(0.0, 0.0, 0.0)
    return Line(slope, torch.maximum(at_low - slope * low, at_high - slope * high) + margin)


def _negative(line: Line) -> Line:
    return Line(-line.slope, -line.intercept)


def corner(node: fx.Node) -> float | None:
    """The slope below zero of a function that is max(slope·z, z); None of any other."""
    if operator_of(node) == "relu":
        return 0.0
    if operator_of(node) != "leaky_relu":
        return None
    slope = float(arguments(node)["negative_slope"])
    return slope if 0 <= slope <= 1 else None


def _rectified(x: Interval, below: float) -> Lines:
    """The chord above max(below·z, z); below it the one of its two pieces that loses less area."""
    low, high = x.lower, x.upper
    at_low, at_high = (end.clamp(min=0) + below * end.clamp(max=0) for end in (low, high))
    upper = _chord(low, high, at_low, at_high, STEP * 4 * x.magnitude + TINY)
    zero = torch.zeros_like(low)
    left, right = Line(torch.full_like(low, below), zero), Line(torch.ones_like(low), zero)
    lower = _where(high > -low, right, left)
    # Where the sign is fixed the function is its line.
    return Lines(lower, _where((low >= 0) | (high <= 0), lower, upper))


def _touching(node: fx.Node, x: Interval) -> Lines:
    """Of the chord and the tangents at three points, the lines that are closest in the middle."""
    steps = [x.lower + (x.upper - x.lower) * (k / PIECES) for k in range(PIECES)]
    points = torch.stack([*steps, x.upper])
    values = curves.image(node, Interval(points, points))
    slopes = curves.slopes(node, Interval(points[:-1], points[1:]))
    chord = (values.upper[-1] - values.lower[0]) / (x.upper - x.lower)
    tried = [chord, slopes.upper[0], slopes.lower[PIECES // 2], slopes.upper[-1]]
    jump = curves.jump(node)
    found = []
    for slope in (one.nan_to_num(0.0, 0.0, 0.0) for one in tried):
        upper = Line(slope, _highest(points, values, slopes, slope) + jump)
        lower = Line(-slope, _highest(points, _negated(values), _negated(slopes), -slope) + jump)
        found.append(Lines(_negative(lower), upper))
    return reduce(lambda one, other: closest(one, other, x.centre), found)


def _highest(points: Tensor, values: Interval, slopes: Interval, slope: Tensor) -> Tensor:
    """At least the greatest f(z) − slope·z, from points, values there and slopes in between."""
    width, at = points.diff(dim=0), values.upper - slope * points
    left = at[:-1] + (slopes.upper - slope).clamp(min=0) * width
    right = at[1:] + (slope - slopes.lower).clamp(min=0) * width
    steep = slopes.magnitude.amax(0) + slope.abs()
    size = values.magnitude.amax(0) + steep * points.abs().amax(0)
    return torch.minimum(left, right).amax(0) + STEP * 8 * size + TINY


def closest(one: Lines, other: Lines, middle: Tensor) -> Lines:
    """Of two lines on either side the one that is closer there."""
    lower = one.lower.at(middle) >= other.lower.at(middle)
    upper = one.upper.at(middle) <= other.upper.at(middle)
    return Lines(_where(lower, one.lower, other.lower), _where(upper, one.upper, other.upper))


def _negated(x: Interval) -> Interval:
    return Interval(-x.upper, -x.lower)


def _where(condition: Tensor, one: Line, other: Line) -> Line:
    return Line(
        torch.where(condition, one.slope, other.slope),
        torch.where(condition, one.intercept, other.intercept),
    )
