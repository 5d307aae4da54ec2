"""How intervals pass the operators of the traced graph, for one network and for a pair of them.

Each operator with a rule has two functions. ``value`` maps the intervals of its operands to that of
its result. ``change`` looks at two networks of one shape and maps what is known of both, and of the
difference between them, to the difference of the results: tighter than subtracting the two
results, because both networks compute the same function of nearly the same numbers.

Parameters are exact tensors. Differences may have one more dimension in front: as many candidates
are looked at in one pass. Where no operand differs, no rule is asked: the result is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, fx

from bequest.graph.rules.norms import epsilon
from bequest.graph.trace import operator_of
from bequest.robust import curves
from bequest.robust.intervals import Interval


@dataclass(frozen=True)
class Twin:
    """One value in two networks.

    Attributes:
        first: in the one network.
        second: in the other.
        change: second minus first, (*shape) or (candidates, *shape); None = they are the same.
    """

    first: Interval
    second: Interval
    change: Interval | None

    @property
    def difference(self) -> Interval:
        """The change, as zeros where there is none."""
        if self.change is not None:
            return self.change
        zeros = torch.zeros_like(self.first.lower)
        return Interval(zeros, zeros)


@dataclass(frozen=True)
class Weights:
    """A parameter or buffer in two networks, in float64."""

    first: Tensor
    second: Tensor

    @property
    def change(self) -> Tensor | None:
        """Second minus first; None = they are the same."""
        return None if self.first is self.second else self.second - self.first


Result = Interval | tuple[Interval, ...]


class Rule(NamedTuple):
    """An operator's two functions; operands that are no tensors are passed as they are."""

    value: Callable[..., Result]
    """(node, *operands) with Interval or Tensor operands."""
    change: Callable[..., Result]
    """(node, *operands) with Twin or Weights operands."""


def rule_of(node: fx.Node) -> Rule | None:
    """The operator's rule; None where it has none."""
    name = operator_of(node)
    if name in RULES:
        return None if name == "batch_norm" and node.args[5] else RULES[name]
    if sum(isinstance(operand, fx.Node) for operand in node.args) > 1:
        return PAIRS.get(name)
    if name == "pad":
        constant = len(node.args) < 3 or node.args[2] == "constant"
        return PADDING if constant else MOVING
    return ELEMENTWISE if curves.has_curve(node) else None


def _per_candidate(operator: Callable[..., Any], x: Tensor, like: Tensor) -> Any:
    """The operator on every candidate's tensor."""
    return torch.vmap(operator)(x) if x.ndim > like.ndim else operator(x)


# Element-wise functions --------------------------------------------------------------------------


def _function_value(node: fx.Node, *operands: Any) -> Result:
    x = next(one for one in operands if isinstance(one, Interval))
    return _as_result(node, curves.image(node, x))


def _function_change(node: fx.Node, *operands: Any) -> Result:
    x = next(one for one in operands if isinstance(one, Twin))
    if operator_of(node) in curves.JUMPING:
        return _as_result(node, curves.image(node, x.second) - curves.image(node, x.first))
    steepness = curves.slopes(node, x.first.hull(x.second))
    found = x.difference * steepness
    jump = curves.jump(node)
    return _as_result(node, Interval(found.lower - jump, found.upper + jump) if jump else found)


def _as_result(node: fx.Node, first: Interval) -> Result:
    """Alone, or as the first of several results."""
    return (first,) if isinstance(node.meta["val"], tuple | list) else first


ELEMENTWISE = Rule(_function_value, _function_change)


# Operators that move, copy or average elements ---------------------------------------------------


def _moved(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Result:
    def operator(values: Tensor) -> Any:
        return node.target(values, *rest, **node.kwargs)  # type: ignore[operator]

    like = node.args[0].meta["val"]  # type: ignore[union-attr]
    lower = _per_candidate(operator, x.lower, like)
    upper = _per_candidate(operator, x.upper, like)
    if isinstance(lower, Tensor):
        return Interval.known(lower, upper)
    return tuple(Interval.known(*ends) for ends in zip(lower, upper, strict=True))


MOVING = Rule(
    lambda node, x, *rest: _moved(node, x, rest),
    lambda node, x, *rest: _moved(node, x.difference, rest),
)
"""Linear maps without negative coefficients: the ends map to the ends."""


def _copied(node: fx.Node, x: Any, *_: Any) -> Result:
    return _as_result(node, x if isinstance(x, Interval) else x.difference)


COPYING = Rule(_copied, _copied)


def _joined(node: fx.Node, parts: list[Interval], rest: tuple[Any, ...]) -> Result:
    def operator(*values: Tensor) -> Tensor:
        made: Tensor = node.target(list(values), *rest, **node.kwargs)  # type: ignore[operator]
        return made

    shapes = [one.meta["val"].ndim for one in node.args[0]]  # type: ignore[union-attr]
    dims = tuple(
        0 if part.lower.ndim > rank else None for part, rank in zip(parts, shapes, strict=True)
    )
    if any(dim == 0 for dim in dims):
        operator = torch.vmap(operator, in_dims=dims)
    return Interval.known(
        operator(*(part.lower for part in parts)), operator(*(part.upper for part in parts))
    )


JOINING = Rule(
    lambda node, parts, *rest: _joined(node, [_interval(part) for part in parts], rest),
    lambda node, parts, *rest: _joined(node, [_change(part) for part in parts], rest),
)


def _padded(node: fx.Node, x: Interval, amounts: Any, value: float) -> Interval:
    def operator(values: Tensor) -> Tensor:
        return F.pad(values, list(amounts), value=value)

    like = node.args[0].meta["val"]  # type: ignore[union-attr]
    return x.mapped(lambda values: _per_candidate(operator, values, like))


def _padding_value(node: fx.Node, x: Interval, amounts: Any, *rest: Any) -> Interval:
    given = rest[-1] if rest and not isinstance(rest[-1], str) else None
    return _padded(node, x, amounts, float(given or 0.0))


PADDING = Rule(
    _padding_value, lambda node, x, amounts, *_: _padded(node, x.difference, amounts, 0.0)
)


# Maxima ------------------------------------------------------------------------------------------


def _largest(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Interval:
    def operator(values: Tensor) -> Tensor:
        found = node.target(values, *rest, **node.kwargs)  # type: ignore[operator]
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first

    like = node.args[0].meta["val"]  # type: ignore[union-attr]
    # The largest of sums changes by no more than the largest change, and by no less than the least.
    return Interval.known(
        _per_candidate(operator, x.lower, like), _per_candidate(operator, x.upper, like)
    )


def _maximum_change(node: fx.Node, x: Twin, *rest: Any) -> Result:
    upper = _largest(node, x.difference, rest).upper
    negated = x.difference.scaled(upper.new_tensor(-1.0))
    return _as_result(node, Interval.known(-_largest(node, negated, rest).upper, upper))


MAXIMUM = Rule(lambda node, x, *rest: _as_result(node, _largest(node, x, rest)), _maximum_change)
"""The difference max(x + d) - max(x) lies between the least and the largest d of the window."""


# Layers ------------------------------------------------------------------------------------------


def _layer_value(
    node: fx.Node, x: Interval, weight: Tensor, bias: Tensor | None = None, *rest: Any
) -> Interval:
    return _shifted(node, x.through(_linear(node, rest), weight), bias, weight)


def _layer_change(
    node: fx.Node, x: Twin, weight: Weights, bias: Weights | None = None, *rest: Any
) -> Interval:
    """W·d, W·d + ΔW·x′ + Δb and W′·d + ΔW·x + Δb, whichever ends are closer."""
    linear = _linear(node, rest)
    grown = None if bias is None else bias.change
    if weight.change is None:
        found = _each(x, linear, weight.first)
        return _shifted(node, found, grown, weight.first)
    forms = []
    for kept, other in ((weight.second, x.first), (weight.first, x.second)):
        found = other.through(linear, weight.change)
        forms.append(found if x.change is None else found + _each(x, linear, kept))
    return _shifted(node, forms[0].meet(forms[1]), grown, weight.first)


def _each(x: Twin, linear: Callable[[Tensor, Tensor], Tensor], weight: Tensor) -> Interval:
    def operator(values: Tensor, by: Tensor) -> Tensor:
        made: Tensor = _per_candidate(lambda one: linear(one, by), values, x.first.lower)
        return made

    return x.difference.through(operator, weight)


def _linear(node: fx.Node, rest: tuple[Any, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    def linear(x: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = node.target(x, weight, None, *rest, **node.kwargs)  # type: ignore[operator]
        return made

    return linear


def _shifted(node: fx.Node, x: Interval, bias: Tensor | None, weight: Tensor) -> Interval:
    if bias is None:
        return x
    return x.shifted(bias.view(-1, *(1 for _ in weight.shape[2:])))


LAYER = Rule(_layer_value, _layer_change)


def _norm_factors(
    node: fx.Node, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor]:
    """The batch norm as scale·x + shift, shaped to follow dimension 1."""
    scale = (var + epsilon(node)).rsqrt()
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    value = node.args[0].meta["val"]  # type: ignore[union-attr]
    shape = (-1, *(1 for _ in value.shape[2:]))
    return scale.view(shape), shift.view(shape)


def _norm_value(node: fx.Node, x: Interval, *operands: Any) -> Result:
    scale, shift = _norm_factors(node, *operands[:4])
    return _as_result(node, x.scaled(scale).shifted(shift).widened())


def _norm_change(node: fx.Node, x: Twin, *operands: Any) -> Result:
    held = [(None, None) if one is None else (one.first, one.second) for one in operands[:4]]
    scale, shift = _norm_factors(node, *(one[0] for one in held))  # type: ignore[arg-type]
    after, moved = _norm_factors(node, *(one[1] for one in held))  # type: ignore[arg-type]
    found = x.difference.scaled(after)
    if any(one is not None and one.change is not None for one in operands[:4]):
        found = found + x.first.scaled(after - scale).shifted(moved - shift)
    return _as_result(node, found.widened())


NORM = Rule(_norm_value, _norm_change)


# Two operands, softmax ---------------------------------------------------------------------------


def _sum_value(node: fx.Node, x: Any, y: Any) -> Interval:
    return _terms(node, _interval(x), _interval(y))


def _sum_change(node: fx.Node, x: Any, y: Any) -> Interval:
    return _terms(node, _change(x), _change(y))


def _terms(node: fx.Node, x: Interval, y: Interval) -> Interval:
    alpha: Any = node.kwargs.get("alpha", 1)
    factor = x.lower.new_tensor(float(alpha))
    if operator_of(node) == "add":
        return (x + y.scaled(factor)).widened()
    return (x - y.scaled(factor)).widened()


def _product_value(node: fx.Node, x: Any, y: Any) -> Interval:
    return _interval(x) * _interval(y)


def _product_change(node: fx.Node, x: Any, y: Any) -> Interval:
    """x′y′ − xy = Δx·y′ + x·Δy."""
    later = y.second if isinstance(y, Twin) else _interval(y.second)
    earlier = x.first if isinstance(x, Twin) else _interval(x.first)
    return (_change(x) * later + earlier * _change(y)).widened()


def _interval(x: Any) -> Interval:
    return Interval(x, x) if isinstance(x, Tensor) else x


def _change(x: Any) -> Interval:
    return x.difference if isinstance(x, Twin) else _interval(x.second - x.first)


def _softmax_value(node: fx.Node, x: Interval, dim: int, *_: Any) -> Interval:
    """Largest where the entry is at its upper end and all others at their lower, and vice versa."""
    top = x.upper.amax(dim, keepdim=True)
    low, high = (x.lower - top).exp(), (x.upper - top).exp()
    others_low, others_high = low.sum(dim, keepdim=True) - low, high.sum(dim, keepdim=True) - high
    found = Interval.known(low / (low + others_high), high / (high + others_low.clamp(min=0)))
    return found.widened()


def _softmax_change(node: fx.Node, x: Twin, dim: int, *_: Any) -> Interval:
    """dp_i = p_i(1 − p_i)·(dz_i − mean of the others' dz), and p(1 − p) ≤ 1/4."""
    axis = dim % x.first.lower.ndim - x.first.lower.ndim
    lower, upper = x.difference.lower, x.difference.upper
    quarter = lower.new_tensor(0.25)
    above = (upper - lower.amin(axis, keepdim=True)).clamp(min=0)
    below = (lower - upper.amax(axis, keepdim=True)).clamp(max=0)
    return Interval.known(below * quarter, above * quarter).widened()


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        "view _unsafe_view reshape flatten unflatten permute transpose t movedim swapaxes "
        "unsqueeze squeeze expand slice select split split_with_sizes chunk mean "
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "_adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d sum "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d "
        "upsample_linear1d upsample_trilinear3d reflection_pad1d reflection_pad2d "
        "replication_pad1d replication_pad2d".split(),
        MOVING,
    ),
    **dict.fromkeys(
        "clone alias detach contiguous dropout native_dropout lift_fresh_copy lift_fresh "
        "positive".split(),
        COPYING,
    ),
    **dict.fromkeys(
        "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
        "max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d amax".split(),
        MAXIMUM,
    ),
    **dict.fromkeys(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split(),
        LAYER,
    ),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "batch_norm"), NORM),
    **dict.fromkeys(("cat", "stack"), JOINING),
    **dict.fromkeys(("softmax", "_softmax"), Rule(_softmax_value, _softmax_change)),
    "constant_pad_nd": PADDING,
}
"""Operators with a rule of their own; functions of one element are those of :mod:`curves`."""

PAIRS = {
    **dict.fromkeys(("add", "sub"), Rule(_sum_value, _sum_change)),
    "mul": Rule(_product_value, _product_change),
}
