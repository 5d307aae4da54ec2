"""Sums and products of two tensors, and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from bequest.graph.trace import operator_of
from bequest.robust.intervals import Interval, summing
from bequest.robust.rules.base import PAIRS, Rule, as_interval, file
from bequest.robust.twins import Twin


def _sum_value(node: fx.Node, x: Any, y: Any) -> Interval:
    return _terms(node, as_interval(x), as_interval(y))


def _sum_change(node: fx.Node, x: Any, y: Any) -> Interval:
    return _terms(node, x.difference, y.difference)


def _terms(node: fx.Node, x: Interval, y: Interval) -> Interval:
    alpha: Any = node.kwargs.get("alpha", 1)
    y = y if alpha == 1 else y.scaled(y.lower.new_tensor(float(alpha)))
    return x + y if operator_of(node) == "add" else x - y


def _product_value(node: fx.Node, x: Any, y: Any) -> Interval:
    return as_interval(x) * as_interval(y)


def _product_change(node: fx.Node, x: Any, y: Any) -> Interval:
    """x′y′ − xy = Δx·y′ + x·Δy."""
    later = y.second if isinstance(y, Twin) else as_interval(y.second)
    earlier = x.first if isinstance(x, Twin) else as_interval(x.first)
    found: Interval = x.difference * later + earlier * y.difference
    return found


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


PAIRS["add"] = PAIRS["sub"] = Rule(_sum_value, _sum_change)
PAIRS["mul"] = Rule(_product_value, _product_change)
file(Rule(_softmax_value, _softmax_change), "softmax _softmax")
