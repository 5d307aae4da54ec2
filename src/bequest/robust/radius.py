"""How far an input can be from the given one without changing the class, proven by intervals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bequest.errors import ModelError, UsageError
from bequest.graph.inputs import normalise_inputs, tensors_of
from bequest.graph.rules import read
from bequest.graph.trace import named_tensors, trace
from bequest.robust.folding import folded
from bequest.robust.impact import output_of, values
from bequest.robust.inputs import InputRange, ends_of
from bequest.robust.intervals import Interval

HALVINGS = 20
"""Bisections: a millionth of the input range."""


def certified_radius(model: nn.Module, inputs: Any, input_range: InputRange = (0, 1)) -> Tensor:
    """For each input the largest ℓ∞ distance within which the predicted class provably stays.

    Interval arithmetic bounds the outputs over the box around an input, cut to the input range; the
    class stays where its lower end is above all other upper ends. Found by bisection, for all
    inputs at once. It speaks of exact arithmetic with the model's weights: a network in half
    precision adds its own rounding.

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
    reading = read(trace(model, inputs))
    shape = output_of(reading.network).meta["val"].shape
    if len(shape) != 2 or shape[0] != len(x) or shape[1] < 2:
        raise ModelError(f"certified_radius: expected an output (B, K), found {tuple(shape)}")
    dense = {
        name: tensor.detach().double() if tensor.is_floating_point() else tensor.detach()
        for name, tensor in named_tensors(model).items()
    }
    held = folded(reading, dense)

    def outputs(radius: Tensor) -> Interval:
        reach = radius.view(-1, *(1 for _ in x.shape[1:]))
        around = Interval(x, x) + Interval(-reach, reach)
        box = Interval(torch.maximum(around.lower, low), torch.minimum(around.upper, high))
        found = values(reading.network, held, [box])
        if found.gaps:
            raise ModelError(
                f"certified_radius: no interval rule for {', '.join(found.gaps)}; nothing can be "
                "proven of this network"
            )
        bounds: Interval = found.known[output_of(reading.network)]
        return bounds

    with torch.no_grad():
        proven = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        winner = outputs(proven).centre.argmax(1, keepdim=True)
        size = float((high - low).max())
        for halving in range(1, HALVINGS + 1):
            tried = proven + size / 2**halving
            found = outputs(tried)
            others = found.upper.scatter(1, winner, -torch.inf).amax(1)
            holds = found.lower.gather(1, winner)[:, 0] > others
            proven = torch.where(holds, tried, proven)
    return proven


def within(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inputs, cut to the range where rounding has put them outside."""
    slack = 1e-5 * (high - low)
    if bool(((x < low - slack) | (x > high + slack)).any()) or not bool(x.isfinite().all()):
        raise UsageError(
            f"certified_radius: expected inputs within the input range, found {float(x.min()):.4g} "
            f"to {float(x.max()):.4g}; give the range as the network reads its inputs"
        )
    return torch.maximum(torch.minimum(x, high), low)
