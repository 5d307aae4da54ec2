"""How a model is run to be measured: its mode, its device, its inputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
"""One tensor, or several as positional or keyword arguments of the model."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; each module's own mode is back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def at_least_single(model: nn.Module) -> nn.Module:
    """The model itself, or a single precision copy of one in half precision.

    Sums over many rows, and gradients, need the digits.
    """
    halves = (torch.float16, torch.bfloat16)
    if any(tensor.dtype in halves for tensor in (*model.parameters(), *model.buffers())):
        return copy.deepcopy(model).float()
    return model


def device_of(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def is_on(model: nn.Module, device: torch.device) -> bool:
    """True on that very device; "cuda" without a number is any of its kind."""
    here = device_of(model)
    return here.type == device.type and device.index in (None, here.index)


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The dtype of the first floating-point parameter; None for a model without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def placed(inputs: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """The inputs on ``device``; floating-point tensors cast to ``dtype`` where it isn't None."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, dtype if inputs.is_floating_point() else None)
    if isinstance(inputs, Mapping):
        return {name: placed(value, device, dtype) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(placed(value, device, dtype) for value in inputs)
    return inputs


def run(model: nn.Module, inputs: Inputs) -> Any:
    """``model(inputs)``, ``model(*inputs)`` or ``model(**inputs)``."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)
