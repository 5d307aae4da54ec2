"""The precision in which networks are looked at: single at least, as sums need the digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bequest.errors import ModelError
from bequest.execution.copies import duplicate

HALF = frozenset({torch.float16, torch.bfloat16})
"""Types that are too coarse for sums over many rows, and for gradients."""


def at_least_single(model: nn.Module) -> nn.Module:
    """The model itself, or a single precision copy of one in half precision."""
    if any(tensor.dtype in HALF for tensor in (*model.parameters(), *model.buffers())):
        return duplicate(model).float()
    return model


def working_precision(model: nn.Module) -> torch.dtype:
    """The floating-point type to work in: double for a model with doubles, else single."""
    double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    return torch.float64 if double else torch.float32


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that inputs of a type are held in: doubles stay, other real numbers are single.

    Whole numbers and booleans stay what they are.
    """
    return torch.float32 if dtype.is_floating_point and dtype != torch.float64 else dtype


def rounded(name: str, values: Tensor, dtype: torch.dtype, cause: str) -> Tensor:
    """New values of a model's tensor in the type that it had.

    Args:
        name: qualified name of the tensor.
        values: in a wider type.
        dtype: that of the model.
        cause: what made them, for the message.

    Raises:
        ModelError: one is too large for the type.
    """
    fitting = values.to(dtype)
    if bool((values.isfinite() & ~fitting.isfinite()).any()):
        raise ModelError(
            f"expected '{name}' to fit into {str(dtype).removeprefix('torch.')}, found values up "
            f"to {float(values.abs().max()):.3g} after {cause}; prune the model in float32 "
            "(model.float()), or hand on less of what leaves: a larger ridge, a lower ratio"
        )
    return fitting
