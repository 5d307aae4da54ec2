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
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, fx

from bequest.graph.rules.norms import epsilon
from bequest.graph.trace import operator_of
from bequest.robust import curves
from bequest.robust.intervals import STEP, TINY, Interval, summing
from bequest.robust.twins import Result, Rule, Twin, Weights, as_result, per_candidate


def rule_of(node: fx.Node) -> Rule | None:
    """The operator's rule; None where it has none."""
    name = operator_of(node)
    if name in RULES:
        training = {"batch_norm": 5, "dropout": 2, "native_dropout": 2}.get(name)
        return None if training is not None and node.args[training] else RULES[name]
    operands = sum(isinstance(operand, fx.Node) for operand in node.args)
    if max(operands, len(node.all_input_nodes)) > 1:
        return PAIRS.get(name)
    if name == "pad":
        constant = len(node.args) < 3 or node.args[2] == "constant"
        return PADDING if constant else MOVING
    return ELEMENTWISE if curves.has_curve(node) else None


# Element-wise functions --------------------------------------------------------------------------


def _function_value(node: fx.Node, *operands: Any) -> Result:
    x = next(one for one in operands if isinstance(one, Interval))
    return as_result(node, curves.image(node, x))


def _function_change(node: fx.Node, *operands: Any) -> Result:
    x = next(one for one in operands if isinstance(one, Twin))
    if curves.jumps(node):
        return as_result(node, curves.image(node, x.second) - curves.image(node, x.first))
    steepness = curves.slopes(node, x.first.hull(x.second))
    found = x.difference * steepness
    jump = curves.jump(node)
    return as_result(node, found.widened(jump) if jump else found)


ELEMENTWISE = Rule(_function_value, _function_change)


# Operators that move, copy or average elements ---------------------------------------------------


def _moved(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Result:
    def operator(values: Tensor) -> Any:
        if operator_of(node) in ("view", "_unsafe_view"):  # whose strides are others here
            return values.reshape(*rest)
        return node.target(values, *rest, **node.kwargs)  # type: ignore[operator]

    like = node.args[0].meta["val"]  # type: ignore[union-attr]
    lower = per_candidate(operator, x.lower, like)
    upper = per_candidate(operator, x.upper, like)
    if isinstance(lower, Tensor):
        return Interval.known(lower, upper)
    return tuple(Interval.known(*ends) for ends in zip(lower, upper, strict=True))


MOVING = Rule(
    lambda node, x, *rest: _moved(node, x, rest),
    lambda node, x, *rest: _moved(node, x.difference, rest),
)
"""Every entry of the result is one of the operand."""


def _averaged(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Interval:
    """A sum or mean errs in proportion to its terms, of which little may be left."""
    kwargs = {name: value for name, value in node.kwargs.items() if name != "dtype"}
    like = node.args[0].meta["val"]  # type: ignore[union-attr]

    def operator(values: Tensor) -> Tensor:
        made: Tensor = node.target(values, *rest, **kwargs)  # type: ignore[operator]
        return made

    ends = [per_candidate(operator, end, like) for end in (x.lower, x.upper, x.magnitude)]
    lower, upper, magnitude = torch.minimum(*ends[:2]), torch.maximum(*ends[:2]), ends[2].abs()
    margin = summing(like.numel()) * magnitude + TINY
    return Interval.known(lower - margin, upper + margin)


AVERAGING = Rule(
    lambda node, x, *rest: _averaged(node, x, rest),
    lambda node, x, *rest: _averaged(node, x.difference, rest),
)
"""Sums whose coefficients have one sign: the ends map to the ends."""


def _copied(node: fx.Node, x: Any, *_: Any) -> Result:
    return as_result(node, x if isinstance(x, Interval) else x.difference)


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
    lambda node, parts, *rest: _joined(node, [part.difference for part in parts], rest),
)


def _padded(node: fx.Node, x: Interval, amounts: Any, value: float) -> Interval:
    def operator(values: Tensor) -> Tensor:
        return F.pad(values, list(amounts), value=value)

    like = node.args[0].meta["val"]  # type: ignore[union-attr]
    return x.mapped(lambda values: per_candidate(operator, values, like))


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
        per_candidate(operator, x.lower, like), per_candidate(operator, x.upper, like)
    )


def _maximum_change(node: fx.Node, x: Twin, *rest: Any) -> Result:
    upper = _largest(node, x.difference, rest).upper
    negated = x.difference.scaled(upper.new_tensor(-1.0))
    return as_result(node, Interval.known(-_largest(node, negated, rest).upper, upper))


MAXIMUM = Rule(lambda node, x, *rest: as_result(node, _largest(node, x, rest)), _maximum_change)
"""The difference max(x + d) - max(x) lies between the least and the largest d of the window."""


# Layers ------------------------------------------------------------------------------------------


def _layer_value(
    node: fx.Node, x: Interval, weight: Tensor, bias: Tensor | None = None, *rest: Any
) -> Interval:
    found = x.through(_linear(node, rest), weight)
    return found if bias is None else found.shifted(_per_output(bias, weight))


def _layer_change(
    node: fx.Node, x: Twin, weight: Weights, bias: Weights | None = None, *rest: Any
) -> Interval:
    """W·d, W·d + ΔW·x′ + Δb and W′·d + ΔW·x + Δb, whichever ends are closer."""
    linear = _linear(node, rest)
    if weight.change is None:
        found = _each(x, linear, weight.first)
    else:
        forms = []
        for kept, other in ((weight.second, x.first), (weight.first, x.second)):
            rounding = _rounding(other, weight)
            form = other.through(linear, weight.change).widened(rounding)
            forms.append(form if x.change is None else form + _each(x, linear, kept))
        found = forms[0].meet(forms[1])
    if bias is None or bias.change is None:
        return found
    grown = bias.difference
    ends = (_per_output(end, weight.first) for end in (grown.lower, grown.upper))
    return found + Interval(*ends)


def _rounding(x: Interval, weight: Weights) -> Tensor:
    """How far ΔW·x can be off as ΔW is the difference of rounded numbers; a scalar."""
    size = weight.magnitude
    largest = torch.maximum(
        size.flatten(1).sum(1).amax(), size.transpose(0, 1).flatten(1).sum(1).amax()
    )
    return STEP * largest * x.magnitude.amax()


def _each(x: Twin, linear: Callable[[Tensor, Tensor], Tensor], weight: Tensor) -> Interval:
    def operator(values: Tensor, by: Tensor) -> Tensor:
        made: Tensor = per_candidate(lambda one: linear(one, by), values, x.first.lower)
        return made

    return x.difference.through(operator, weight)


def _linear(node: fx.Node, rest: tuple[Any, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    def linear(x: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = node.target(x, weight, None, *rest, **node.kwargs)  # type: ignore[operator]
        return made

    return linear


def _per_output(bias: Tensor, weight: Tensor) -> Tensor:
    return bias.view(-1, *(1 for _ in weight.shape[2:]))


LAYER = Rule(_layer_value, _layer_change)


def _norm_factors(
    node: fx.Node, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The batch norm as scale·(x − mean) + beta, shaped to follow dimension 1.

    Not as scale·x + shift: where the scale is large, little is left of the two.
    """
    scale = (var + epsilon(node)).rsqrt()
    scale = scale if gamma is None else scale * gamma
    beta = torch.zeros_like(mean) if beta is None else beta
    value = node.args[0].meta["val"]  # type: ignore[union-attr]
    shape = (-1, *(1 for _ in value.shape[2:]))
    return scale.view(shape), mean.view(shape), beta.view(shape)


def _norm_value(node: fx.Node, x: Interval, *operands: Any) -> Result:
    scale, mean, beta = _norm_factors(node, *operands[:4])
    return as_result(node, x.shifted(-mean).scaled(scale).shifted(beta))


def _norm_change(node: fx.Node, x: Twin, *operands: Any) -> Result:
    """s′·Δx + Δs·(x − μ) − s′·Δμ + Δβ."""
    held = [(None, None) if one is None else (one.first, one.second) for one in operands[:4]]
    before = _norm_factors(node, *(one[0] for one in held))  # type: ignore[arg-type]
    after = _norm_factors(node, *(one[1] for one in held))  # type: ignore[arg-type]
    found = x.difference.scaled(after[0])
    if all(one is None or one.change is None for one in operands[:4]):
        return as_result(node, found)
    scale, mean, beta = (Weights(*pair).difference for pair in zip(before, after, strict=True))
    found = found + x.first.shifted(-before[1]) * scale - mean.scaled(after[0]) + beta
    return as_result(node, found)


NORM = Rule(_norm_value, _norm_change)


# Two operands, softmax ---------------------------------------------------------------------------


def _sum_value(node: fx.Node, x: Any, y: Any) -> Interval:
    return _terms(node, _interval(x), _interval(y))


def _sum_change(node: fx.Node, x: Any, y: Any) -> Interval:
    return _terms(node, x.difference, y.difference)


def _terms(node: fx.Node, x: Interval, y: Interval) -> Interval:
    alpha: Any = node.kwargs.get("alpha", 1)
    y = y if alpha == 1 else y.scaled(y.lower.new_tensor(float(alpha)))
    return x + y if operator_of(node) == "add" else x - y


def _product_value(node: fx.Node, x: Any, y: Any) -> Interval:
    return _interval(x) * _interval(y)


def _product_change(node: fx.Node, x: Any, y: Any) -> Interval:
    """x′y′ − xy = Δx·y′ + x·Δy."""
    later = y.second if isinstance(y, Twin) else _interval(y.second)
    earlier = x.first if isinstance(x, Twin) else _interval(x.first)
    found: Interval = x.difference * later + earlier * y.difference
    return found


def _interval(x: Any) -> Interval:
    return Interval(x, x) if isinstance(x, Tensor) else x


def _softmax_value(node: fx.Node, x: Interval, dim: int, *_: Any) -> Interval:
    """Largest where the entry is at its upper end and all others at their lower, and vice versa."""
    lower, upper = _share(x.lower, x.upper, dim), _share(x.upper, x.lower, dim)
    found = Interval(lower.nan_to_num(nan=0.0), upper.nan_to_num(nan=1.0))
    return found.widened(summing(x.upper.shape[dim]) * found.upper).within(0, 1)


def _share(own: Tensor, others: Tensor, dim: int) -> Tensor:
    """e^{own_i}/(e^{own_i} + Σ_{j≠i} e^{others_j}), of numbers next to the greatest other.

    The greatest other of entry i is the greatest of all but for that one itself. The sum without an
    entry is taken by subtraction only where the greatest stays in it, which is at least half of it.
    """
    top, first = others.max(dim, keepdim=True)
    rest = others.scatter(dim, first, -torch.inf)
    second = rest.amax(dim, keepdim=True)
    relative = (others - top).exp()
    total = relative.sum(dim, keepdim=True) - relative
    total = total.scatter(dim, first, (rest - second).exp().sum(dim, keepdim=True))
    lead = (own - top).scatter(dim, first, own.gather(dim, first) - second)
    return torch.sigmoid(lead - total.log())


def _softmax_change(node: fx.Node, x: Twin, dim: int, *_: Any) -> Interval:
    """dp_i = p_i(1 − p_i)·(dz_i − mean of the others' dz), and p(1 − p) ≤ 1/4."""
    axis = dim % x.first.lower.ndim - x.first.lower.ndim
    lower, upper = x.difference.lower, x.difference.upper
    quarter = lower.new_tensor(0.25)
    least, most = lower.amin(axis, keepdim=True), upper.amax(axis, keepdim=True)
    apart = Interval(lower, upper) - Interval(least, most)
    ends = Interval(apart.lower.clamp(max=0), apart.upper.clamp(min=0))
    return ends.scaled(quarter)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        "view _unsafe_view reshape flatten unflatten permute transpose t movedim swapaxes "
        "unsqueeze squeeze expand slice select split split_with_sizes chunk "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d reflection_pad1d "
        "reflection_pad2d replication_pad1d replication_pad2d".split(),
        MOVING,
    ),
    **dict.fromkeys(
        "mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "_adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d "
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d".split(),
        AVERAGING,
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
