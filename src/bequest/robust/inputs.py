"""The range of the inputs: which numbers a network can be given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bequest.errors import UsageError
from bequest.graph.inputs import mapped, normalise_inputs, tensors_of
from bequest.robust.intervals import Interval

InputRange = tuple[float | Tensor, float | Tensor] | Sequence[float | Tensor]
"""Lowest and highest value: numbers, or tensors that broadcast to one input."""


def one_input(example_inputs: Any) -> Any:
    """The first of a batch of example inputs, as a batch of one."""
    args, kwargs = normalise_inputs(example_inputs)
    return mapped(kwargs or args, lambda value: value[:1] if value.ndim else value)


def ends_of(input_range: InputRange, like: Tensor) -> tuple[Tensor, Tensor]:
    """The ends in the dtype and on the device of ``like``, which they broadcast to.

    Raises:
        UsageError: not two ends, not finite, reversed, or of another shape; inputs without values.
    """
    if like.is_meta:
        raise UsageError("expected inputs with values, found a tensor on the meta device")
    if not isinstance(input_range, tuple | list) or len(input_range) != 2:
        raise UsageError(
            "input_range: expected the lowest and the highest value of an input, such as (0, 1), "
            f"found {input_range!r}"
        )
    try:
        low, high = (
            torch.as_tensor(end, dtype=like.dtype, device=like.device) for end in input_range
        )
        torch.broadcast_to(low, like.shape), torch.broadcast_to(high, like.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            "input_range: expected two numbers, or two tensors that broadcast to an input of shape "
            f"{tuple(like.shape)}, found {input_range!r}"
        ) from error
    if not (low.isfinite().all() and high.isfinite().all() and (low < high).all()):
        raise UsageError(
            f"input_range: expected finite ends, the lower one first, found {input_range!r}"
        )
    return low, high


def intervals_of(example: Any, input_range: InputRange) -> list[Interval]:
    """An interval per input tensor, float64.

    Raises:
        UsageError: the range is wrong, or an input holds no floating-point numbers.
    """
    found = []
    for value in tensors_of(normalise_inputs(example)):
        if not value.is_floating_point():
            raise UsageError(
                f"example_inputs: expected floating-point inputs, which have a range, found "
                f"{value.dtype}"
            )
        like = value.detach().double()
        ends = ends_of(input_range, like)
        found.append(Interval(*(end.expand_as(like).contiguous() for end in ends)))
    return found


def to_json(input_range: InputRange) -> list[Any]:
    """The ends as plain numbers or nested lists."""
    return [end.tolist() if isinstance(end, Tensor) else float(end) for end in input_range]


def within(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inputs, cut to the range where rounding has put them outside.

    Raises:
        UsageError: they are further outside than that, or not finite.
    """
    slack = 1e-5 * (high - low)
    if bool(((x < low - slack) | (x > high + slack)).any()) or not bool(x.isfinite().all()):
        raise UsageError(
            f"expected inputs within the input range, found {float(x.min()):.4g} "
            f"to {float(x.max()):.4g}; give the range as the network reads its inputs"
        )
    return torch.maximum(torch.minimum(x, high), low)
