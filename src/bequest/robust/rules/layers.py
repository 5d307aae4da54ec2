"""Convolutions, linear layers and batch norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from bequest.graph.geometry import LAYERS
from bequest.graph.rules.norms import epsilon
from bequest.robust.intervals import STEP, Interval, Linear
from bequest.robust.rules.base import Result, Rule, as_result, file, per_candidate
from bequest.robust.twins import Twin, Weights


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
        found = _each(node, x, linear, weight.first)
    else:
        forms = []
        for kept, other in ((weight.second, x.first), (weight.first, x.second)):
            rounding = _rounding(other, weight)
            form = other.through(linear, weight.change).widened(rounding)
            forms.append(form if x.change is None else form + _each(node, x, linear, kept))
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


def _each(node: fx.Node, x: Twin, linear: Linear, weight: Tensor) -> Interval:
    return x.difference.through(
        lambda values, by: per_candidate(node, lambda one: linear(one, by), values), weight
    )


def _linear(node: fx.Node, rest: tuple[Any, ...]) -> Linear:
    def linear(x: Tensor, weight: Tensor) -> Tensor:
        made: Tensor = node.target(x, weight, None, *rest, **node.kwargs)  # type: ignore[operator]
        return made

    return linear


def _per_output(bias: Tensor, weight: Tensor) -> Tensor:
    return bias.view(-1, *(1 for _ in weight.shape[2:]))


def norm_factors(
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
    scale, mean, beta = norm_factors(node, *operands[:4])
    return as_result(node, x.shifted(-mean).scaled(scale).shifted(beta))


def _norm_change(node: fx.Node, x: Twin, *operands: Any) -> Result:
    """s′·Δx + Δs·(x − μ) − s′·Δμ + Δβ."""
    held = [(None, None) if one is None else (one.first, one.second) for one in operands[:4]]
    before = norm_factors(node, *(one[0] for one in held))  # type: ignore[arg-type]
    after = norm_factors(node, *(one[1] for one in held))  # type: ignore[arg-type]
    found = x.difference.scaled(after[0])
    if all(one is None or one.change is None for one in operands[:4]):
        return as_result(node, found)
    scale, mean, beta = (Weights(*pair).difference for pair in zip(before, after, strict=True))
    found = found + x.first.shifted(-before[1]) * scale - mean.scaled(after[0]) + beta
    return as_result(node, found)


file(Rule(_layer_value, _layer_change, exact=True), " ".join(LAYERS))
file(Rule(_norm_value, _norm_change, exact=True), "batch_norm _native_batch_norm_legit_no_training")
