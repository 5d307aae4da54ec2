"""Which network an artefact belongs to: a hash of its tensors' names, shapes and ties."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bequest.errors import ModelError

Shape = tuple[int, ...]
Architecture = Mapping[tuple[str, ...], Shape]
"""All names of each parameter and persistent buffer, sorted → its shape."""


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the architecture, as 64 hexadecimal digits.

    It covers every name of every parameter and persistent buffer with its shape, and which names
    are one shared tensor. It leaves out values, devices, the order of registration, buffers that
    no state dict holds (the constructor makes them anew) and dtypes: the same network in half
    precision has the same fingerprint, and loading compares dtypes tensor by tensor.

    Raises:
        ModelError: a parameter has no shape yet (lazy module).
    """
    return digest(architecture(model))


def architecture(model: nn.Module) -> Architecture:
    """The names, shapes and ties of a network's tensors; what :func:`fingerprint` is made of."""
    aliases: dict[int, list[str]] = {}
    shapes: dict[int, Shape] = {}
    for name, tensor in _persistent(model):
        if is_lazy(tensor):
            raise ModelError(f"'{name}' has no shape yet (lazy module); run the model once")
        aliases.setdefault(id(tensor), []).append(name)
        shapes[id(tensor)] = tuple(tensor.shape)
    return {tuple(sorted(names)): shapes[tensor] for tensor, names in aliases.items()}


def digest(found: Architecture) -> str:
    """The fingerprint of a network of that architecture."""
    entries = sorted([*names, list(shape)] for names, shape in found.items())
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that an artefact stores: each parameter and persistent buffer once.

    Returns:
        Name → tensor in the order of registration; a shared tensor has the first of its names.
    """
    seen: set[int] = set()
    stored: dict[str, Tensor] = {}
    for name, tensor in _persistent(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            stored[name] = tensor
    return stored


def _persistent(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every name of every tensor that a state dict holds, shared modules under each name."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and attribute not in module._non_persistent_buffers_set:
                yield f"{prefix}.{attribute}" if prefix else attribute, tensor
