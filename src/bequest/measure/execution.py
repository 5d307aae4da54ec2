"""How a model is run: on a copy or as it is, its mode, its device, its inputs."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
"""One tensor, or several as positional or keyword arguments of the model."""


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, to be run in the place of a model that isn't ours.

    Its parameters are the model's own memory, without gradients; everything else is its own: modes,
    hooks, buffers and attributes that ``forward`` sets. So nobody who looks at the model meanwhile,
    in another thread either, sees it change, and the copy costs no more than its buffers.
    """
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in model.parameters()
    }
    return duplicate(model, shared).eval()


def duplicate(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """``copy.deepcopy``, also of a model whose attributes hold results of a forward pass.

    Args:
        model: any module.
        memo: id → what stands in the copy's place for it, as :func:`copy.deepcopy` takes it.
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                for held in pytree.tree_leaves(value):
                    if isinstance(held, Tensor) and not held.is_leaf:  # deepcopy takes leaves alone
                        memo.setdefault(id(held), held.detach().clone())
    return copy.deepcopy(model, memo)


@contextmanager
def generators_kept(model: nn.Module) -> Iterator[None]:
    """The global generators of PyTorch, NumPy and Python are afterwards where they were."""
    device = device_of(model)
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the caller's, not ours
    with torch.random.fork_rng(
        [device] if device.type != "cpu" else [], device_type=_generating(device)
    ):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _generating(device: torch.device) -> str:
    """The device type whose generators are saved beside the CPU's."""
    return device.type if device.type not in ("cpu", "meta") else "cuda"


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


def placed(inputs: Any, model: nn.Module) -> Any:
    """The inputs on the model's device, floating-point tensors in its dtype if it has one."""
    device, dtype = device_of(model), dtype_of(model)

    def place(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, dtype if value.is_floating_point() else None)
        if isinstance(value, Mapping):
            return {name: place(each) for name, each in value.items()}
        if isinstance(value, tuple | list):
            return tuple(map(place, value))
        return value

    return place(inputs)


def run(model: nn.Module, inputs: Inputs) -> Any:
    """``model(inputs)``, ``model(*inputs)`` or ``model(**inputs)``."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)
