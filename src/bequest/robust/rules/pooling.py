"""Means, sums and maxima over several elements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from bequest.robust.intervals import TINY, Interval, summing
from bequest.robust.rules.base import Result, Rule, as_result, file, per_candidate
from bequest.robust.twins import Twin


def _averaged(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Interval:
    """Sums whose coefficients have one sign: the ends map to the ends.

    A sum or mean errs in proportion to its terms, of which little may be left.
    """
    kwargs = {name: value for name, value in node.kwargs.items() if name != "dtype"}

    def operator(values: Tensor) -> Tensor:
        made: Tensor = node.target(values, *rest, **kwargs)  # type: ignore[operator]
        return made

    ends = [per_candidate(node, operator, end) for end in (x.lower, x.upper, x.magnitude)]
    lower, upper, magnitude = torch.minimum(*ends[:2]), torch.maximum(*ends[:2]), ends[2].abs()
    terms = node.args[0].meta["val"].numel()  # type: ignore[union-attr]
    margin = summing(terms) * magnitude + TINY
    return Interval.known(lower - margin, upper + margin)


def _largest(node: fx.Node, x: Interval, rest: tuple[Any, ...]) -> Interval:
    def operator(values: Tensor) -> Tensor:
        found = node.target(values, *rest, **node.kwargs)  # type: ignore[operator]
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first

    return Interval.known(*(per_candidate(node, operator, end) for end in (x.lower, x.upper)))


def _largest_change(node: fx.Node, x: Twin, *rest: Any) -> Result:
    """max(x + d) − max(x) lies between the least and the largest d of the window."""
    upper = _largest(node, x.difference, rest).upper
    negated = x.difference.scaled(upper.new_tensor(-1.0))
    return as_result(node, Interval.known(-_largest(node, negated, rest).upper, upper))


file(
    Rule(
        lambda node, x, *rest: _averaged(node, x, rest),
        lambda node, x, *rest: _averaged(node, x.difference, rest),
    ),
    "mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "_adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool3d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d",
)
file(
    Rule(lambda node, x, *rest: as_result(node, _largest(node, x, rest)), _largest_change),
    "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
    "max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d amax",
)
