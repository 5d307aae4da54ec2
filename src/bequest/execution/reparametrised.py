"""Parameters that PyTorch's own utilities compute anew at every pass, stored as plain ones.

``parametrize`` and the older hooks of ``weight_norm``, ``spectral_norm`` and ``nn.utils.prune``
leave a module its class and its code: with the numbers of evaluation mode in their place it
computes the same, and its channels can leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bequest.execution.copies import duplicate

_REMOVERS: dict[type, tuple[str, Callable[[nn.Module, str], Any]]] = {
    WeightNorm: ("name", remove_weight_norm),
    SpectralNorm: ("name", remove_spectral_norm),
    prune.BasePruningMethod: ("_tensor_name", prune.remove),
}
"""Kind of hook → where it keeps the parameter's name, and what stores the parameter."""


def as_stored(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with stored parameters, and their names; without computed ones it itself.

    Args:
        model: any object; it is not changed.
    """
    if not isinstance(model, nn.Module) or not any(map(_is_computed, model.modules())):
        return model, ()
    stored, found = duplicate(model), []
    modes = [(module, module.training) for module in stored.modules()]
    stored.eval()
    with torch.no_grad():
        for name, module in list(stored.named_modules()):
            found += [f"{name}.{one}".lstrip(".") for one in (*_unhooked(module), *_plain(module))]
    for module, training in modes:
        module.training = training
    return stored, tuple(found)


def _is_computed(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module) or any(_hooks(module))


def _hooks(module: nn.Module) -> list[tuple[str, Callable[[nn.Module, str], Any]]]:
    """Parameters that hooks compute, by name, and what stores each."""
    return [
        (getattr(hook, attribute), remove)
        for hook in module._forward_pre_hooks.values()
        for kind, (attribute, remove) in _REMOVERS.items()
        if isinstance(hook, kind)
    ]


def _unhooked(module: nn.Module) -> list[str]:
    for name, remove in (found := _hooks(module)):
        remove(module, name)
    return [name for name, _ in found]


def _plain(module: nn.Module) -> list[str]:
    """Stores what parametrisations compute.

    ``remove_parametrizations`` would take them off the class, which the caller's module shares.
    """
    if not parametrize.is_parametrized(module):
        return []
    kept: Any = module.parametrizations
    values: dict[str, Tensor] = {name: getattr(module, name).detach().clone() for name in kept}
    module.__class__ = type(module).__bases__[0]
    del module.parametrizations
    for name, value in values.items():
        sources = list(kept[name].parameters(recurse=False))
        if sources:
            trained = any(source.requires_grad for source in sources)
            module.register_parameter(name, nn.Parameter(value, requires_grad=trained))
        else:
            module.register_buffer(name, value)
    return list(values)
