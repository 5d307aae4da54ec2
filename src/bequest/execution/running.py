"""How a model is run: on a copy or as it is, its mode, its device, its inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bequest.execution.copies import duplicate
from bequest.execution.devices import device_of, usable
from bequest.execution.modules import misfit, require_module
from bequest.execution.threads import ONE_AT_A_TIME

Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
"""One tensor, or several as positional or keyword arguments of the model."""


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """One thread at a time; the global generators are afterwards where they were.

    Those of PyTorch (on the CPU and on the model's device), NumPy and Python.
    """
    device = device_of(model)
    accelerators = [] if device.type in ("cpu", "meta") else [device]
    kind = accelerators[0].type if accelerators else "cuda"
    with ONE_AT_A_TIME, torch.random.fork_rng(accelerators, device_type=kind):
        states = random.getstate(), np.random.get_state()  # noqa: NPY002 -- the caller's, not ours
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards modes and buffers are as they were.

    Raises:
        UsageError: ``model`` is no module.
    """
    require_module(model)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with _buffers_kept(model), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Counters and the like that ``forward`` changes, in place or by another tensor."""
    held = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    values = {buffer: buffer.detach().clone() for buffer in model.buffers() if not buffer.is_meta}
    try:
        yield
    finally:
        for module, buffers in held:
            module._buffers.clear()
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, value in values.items():
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def on_device(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The model itself, or a copy on another device; None = where the model is.

    Raises:
        UsageError: there is no such device on this machine.
    """
    if device is None:
        return model
    here, wanted = device_of(model), usable(device)
    there = here.type == wanted.type and wanted.index in (None, here.index)
    return model if there else duplicate(model).to(wanted)


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The dtype of the first floating-point parameter; None for a model without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def placed(inputs: Any, model: nn.Module) -> Any:
    """The inputs on the model's device, floating-point tensors in its dtype if it has one."""
    device, dtype = device_of(model), dtype_of(model)

    def place(value: Tensor) -> Tensor:
        return value.to(device, dtype if value.is_floating_point() else None)

    held = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return pytree.tree_map_only(Tensor, place, held)


def run(model: nn.Module, inputs: Inputs) -> Any:
    """``model(inputs)``, ``model(*inputs)`` or ``model(**inputs)``.

    Raises:
        UsageError: the model fails on them; the message says how.
    """
    try:
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, tuple | list):
            return model(*inputs)
        return model(inputs)
    except torch.OutOfMemoryError:  # the inputs are as they should be
        raise
    except Exception as error:
        raise misfit(model, inputs, error) from error
