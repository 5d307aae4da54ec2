"""How far an input can be from the given one without changing the class, proven."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bequest.errors import ModelError, UsageError
from bequest.graph.inputs import normalise_inputs, tensors_of
from bequest.robust.aligned import Aligned
from bequest.robust.bounds import EFFORT, Bounds
from bequest.robust.impact import output_of
from bequest.robust.inputs import InputRange, ends_of, within
from bequest.robust.intervals import Interval

HALVINGS = 20
"""Bisections: a millionth of the input range."""


def certified_radius(model: nn.Module, inputs: Any, input_range: InputRange = (0, 1)) -> Tensor:
    """For each input the largest ℓ∞ distance within which the predicted class provably stays.

    Back-substitution bounds how far the class is ahead of each other one over the box around an
    input, cut to the input range; where an operator doesn't let rows pass, intervals do. Found by
    bisection, for all inputs at once. It speaks of exact arithmetic with the model's weights: a
    network in half precision adds its own rounding.

    Args:
        model: gives (B, K), K ≥ 2, logits or anything that rises with them.
        inputs: one floating-point tensor (B, ...).
        input_range: lowest and highest value, numbers or tensors that broadcast to the inputs.

    Returns:
        float64 (B,): 0 where nothing is proven, at most the width of the range.

    Raises:
        UsageError: the inputs or the range are wrong, or do not fit each other.
        ModelError: the output is not (B, K), or an operator has no interval rule.
    """
    tensors = tensors_of(normalise_inputs(inputs))
    if len(tensors) != 1 or not tensors[0].is_floating_point():
        raise UsageError("certified_radius: expected inputs that are one floating-point tensor")
    x = tensors[0].detach().double()
    low, high = ends_of(input_range, x)
    x = within(x, low, high)
    one = Aligned.alone(model, inputs)
    output = output_of(one.network)
    shape = tuple(output.meta["val"].shape)
    if len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
        raise ModelError(f"certified_radius: expected an output (B, K), found {shape} for B = 1")

    def bounds_of(radius: Tensor) -> Bounds:
        reach = radius.view(-1, *(1 for _ in x.shape[1:]))
        around = Interval(x, x) + Interval(-reach, reach)
        box = Interval(
            torch.maximum(around.lower, low)[:, None], torch.minimum(around.upper, high)[:, None]
        )
        found = Bounds(one.network, one.weights, len(x), x.device, EFFORT * len(x))
        found.interpret([box])
        if found.gaps:
            raise ModelError(
                f"certified_radius: no interval rule for {', '.join(found.gaps)}; nothing can be "
                "proven of this network"
            )
        return found

    with torch.no_grad():
        proven = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        winners = bounds_of(proven).values[output].first.centre[:, 0].argmax(1)
        size = float((high - low).max())
        for halving in range(1, HALVINGS + 1):
            tried = proven + size / 2**halving
            holds = bounds_of(tried).lead(output, winners) > 0
            proven = torch.where(holds, tried, proven)
    return proven
