"""Ranges and slopes of element-wise functions over intervals.

Over an interval a function takes its least and greatest value at an end or at a point inside where
it turns, and so does its derivative. :data:`TURNS` lists these points, corners and jumps included,
for every function that the graph has a rule for; ranges and slopes then need nothing but
evaluations of the operator itself and of its derivative, next to these points on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from bequest.graph.trace import operator_of
from bequest.robust.intervals import ROUNDING, STEP, Interval

Points = Callable[[fx.Node], tuple[float, ...]]
"""The turning points of an operator, which may depend on its arguments."""


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _at(*points: float) -> Points:
    return lambda node: points


def _given(*arguments: tuple[int, str, float | None]) -> Points:
    """The points are arguments of the operator: (position, name, default)."""

    def points(node: fx.Node) -> tuple[float, ...]:
        held = (_argument(node, *argument) for argument in arguments)
        return tuple(float(value) for value in held if value is not None)

    return points


def _softplus(node: fx.Node) -> tuple[float, ...]:
    """Where it becomes the identity."""
    return (float(_argument(node, 2, "threshold", 20)) / float(_argument(node, 1, "beta", 1)),)


def _logit(node: fx.Node) -> tuple[float, ...]:
    """It may stop at a distance from its poles."""
    eps = _argument(node, 1, "eps", None)
    return (0.0, 0.5, 1.0) if eps is None else (0.0, 0.5, 1.0, float(eps), 1 - float(eps))


def _gelu(node: fx.Node) -> tuple[float, ...]:
    if _argument(node, 1, "approximate", "none") == "tanh":
        return -0.752461422071016258, -1.41850400879082836, 1.41850400879082836
    return -0.751791524693564457, -math.sqrt(2), math.sqrt(2)


_NOWHERE, _ZERO = _at(), _at(0.0)

TURNS: dict[str, Points] = {
    **dict.fromkeys("neg exp expm1 exp2 log log1p log2 log10 sqrt acosh".split(), _NOWHERE),
    **dict.fromkeys("log_sigmoid log_sigmoid_forward add sub rsub mul div".split(), _NOWHERE),
    **dict.fromkeys("relu leaky_relu elu selu celu abs square".split(), _ZERO),
    **dict.fromkeys("sigmoid tanh asin atan sinh cosh asinh atanh erf erfc acos".split(), _ZERO),
    **dict.fromkeys("reciprocal rsqrt pow sign sgn".split(), _ZERO),
    **dict.fromkeys("round floor ceil trunc".split(), _NOWHERE),
    "relu6": _at(0.0, 6.0),
    "hardsigmoid": _at(-3.0, 3.0),
    "hardswish": _at(-3.0, -1.5, 3.0),
    "hardtanh": _given((1, "min_val", -1.0), (2, "max_val", 1.0)),
    "clamp": _given((1, "min", None), (2, "max", None)),
    "clamp_min": _given((1, "min", None)),
    "clamp_max": _given((1, "max", None)),
    "threshold": _given((1, "threshold", None)),
    "logit": _logit,
    "softplus": _softplus,
    "gelu": _gelu,
    "silu": _at(-1.2784645427610738, -2.39935728051546767, 2.39935728051546767),
    "mish": _at(-1.19243121451549521, -2.25637639636079312, 1.49057117948542846),
}
"""Operator → the points where the function or its derivative turns, jumps or has a corner. Found as
roots of the first and second derivative to 18 digits where no closed form exists."""

PERIODIC = frozenset({"sin", "cos"})
"""Functions whose range and slopes are taken to be those of the whole line: from -1 to 1."""

_JUMPING = frozenset("round floor ceil trunc sign sgn threshold".split())

_STRAIGHT = frozenset(
    "relu leaky_relu abs neg relu6 hardtanh clamp clamp_min clamp_max add sub rsub mul div".split()
)
"""Functions of straight pieces, whose values and slopes are as good as one operation's."""

_CANCELLING = frozenset({"gelu", "logit"})
"""Functions that a library computes as a difference of numbers up to 100, little of it left."""


LIMITS = {
    **dict.fromkeys("relu abs square sqrt rsqrt exp exp2 softplus".split(), (0.0, math.inf)),
    **dict.fromkeys("sigmoid hardsigmoid".split(), (0.0, 1.0)),
    "relu6": (0.0, 6.0),
    **dict.fromkeys("tanh erf sin cos".split(), (-1.0, 1.0)),
}
"""What no value lies beyond: a margin for rounding must not lead out of what a root or a logarithm
behind it takes."""

_ENDS = {
    "clamp": ((1, "min", None), (2, "max", None)),
    "clamp_min": ((1, "min", None), None),
    "clamp_max": (None, (1, "max", None)),
    "hardtanh": ((1, "min_val", -1.0), (2, "max_val", 1.0)),
}
"""The same where arguments say it: (position, name, default) of either end."""


def limits(node: fx.Node) -> tuple[float, float]:
    """The least and the greatest value that the function can take, as far as it is known."""
    name = operator_of(node)
    if name == "pow":
        power = _argument(node, 1, "exponent", None)
        return (0.0 if isinstance(power, int | float) and power % 2 == 0 else -math.inf), math.inf
    if name not in _ENDS:
        return LIMITS.get(name, (-math.inf, math.inf))
    given = [None if end is None else _argument(node, *end) for end in _ENDS[name]]
    low, high = (one if isinstance(one, int | float) else None for one in given)
    high = math.inf if high is None else float(high)
    return min(-math.inf if low is None else float(low), high), high


def jumps(node: fx.Node) -> bool:
    """Whether it has no bounded slopes; its differences are bounded by its ranges alone."""
    return operator_of(node) in _JUMPING or node.kwargs.get("rounding_mode") is not None


def jump(node: fx.Node) -> float:
    """How far a function with bounded slopes jumps: softplus, where it becomes the identity."""
    if operator_of(node) != "softplus":
        return 0.0
    threshold, beta = _argument(node, 2, "threshold", 20), _argument(node, 1, "beta", 1)
    return math.log1p(math.exp(-float(threshold))) / float(beta)


def has_curve(node: fx.Node) -> bool:
    """Whether the operator's range and slopes are known."""
    return operator_of(node) in PERIODIC or operator_of(node) in TURNS


def apply(node: fx.Node, x: Tensor) -> Tensor:
    """The operator on other values."""
    args = [x if isinstance(arg, fx.Node) else arg for arg in node.args]
    result = node.target(*args, **node.kwargs)  # type: ignore[operator]
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first


def image(node: fx.Node, x: Interval) -> Interval:
    """All values that the function takes over ``x``, with a margin for rounding."""
    ends = limits(node)
    if operator_of(node) in PERIODIC:
        return Interval(*(torch.full_like(x.lower, end) for end in ends))
    if node.kwargs.get("rounding_mode") is not None:  # the quotient is rounded to digits before
        x = Interval(x.lower - STEP * x.lower.abs(), x.upper + STEP * x.upper.abs())
    found = _extremes(node, lambda values: apply(node, values), x)
    found = found.widened(ROUNDING if operator_of(node) in _CANCELLING else 0.0)
    return found.within(*ends)


def slopes(node: fx.Node, x: Interval) -> Interval:
    """All slopes of the function over ``x``, one-sided ones at corners included.

    (f(x + d) − f(x))/d is one of them (or between two of them) wherever x and x + d are in the
    interval: the mean value theorem, piece by piece.
    """
    name = operator_of(node)
    if name == "relu":  # by far the most frequent: without evaluations
        return Interval((x.lower >= 0).double(), (x.upper > 0).double())
    if name in PERIODIC:
        ones = torch.ones_like(x.lower)
        return Interval(-ones, ones)
    if jumps(node):
        return Interval.unbounded(x.lower.shape, x.lower.device)
    found = _extremes(node, lambda values: _derivative(node, values), x)
    # σ(1 − σ) and the like: where it saturates, nothing is left of a slope that isn't zero.
    return found if name in _STRAIGHT else found.widened(ROUNDING)


def _extremes(node: fx.Node, function: Callable[[Tensor], Tensor], x: Interval) -> Interval:
    ends = function(x.lower), function(x.upper)
    lower, upper = torch.minimum(*ends), torch.maximum(*ends)
    for point in _beside(node, x.lower):
        value = function(point)
        inside = (x.lower <= point) & (point <= x.upper)
        lower = torch.where(inside, torch.minimum(lower, value), lower)
        upper = torch.where(inside, torch.maximum(upper, value), upper)
    return Interval.known(lower, upper)


def _beside(node: fx.Node, like: Tensor) -> Iterator[Tensor]:
    """Each turning point and its neighbours on both sides, as float64 scalars."""
    for turn in TURNS[operator_of(node)](node):
        point = like.new_tensor(turn)
        yield point
        for side in (-torch.inf, torch.inf):
            yield torch.nextafter(point, point.new_tensor(side))


_OWN_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "asin": lambda x: ((1 - x) * (1 + x)).rsqrt(),
    "acos": lambda x: -((1 - x) * (1 + x)).rsqrt(),
    "atanh": lambda x: 1 / ((1 - x) * (1 + x)),
    "acosh": lambda x: ((x - 1) * (x + 1)).rsqrt(),
    "hardsigmoid": lambda x: (x.abs() < 3).double() / 6,
}
"""Slopes that autograd computes by way of x² - 1, of which little is left next to the poles, or
with a sixth of single precision."""


def _derivative(node: fx.Node, x: Tensor) -> Tensor:
    if operator_of(node) in _OWN_SLOPES:
        return _OWN_SLOPES[operator_of(node)](x)
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(apply(node, x).sum(), x)
    return slope
