"""Which models are let in: everything that would be pruned wrongly is refused by name here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import parametrize

from bequest.errors import ModelError
from bequest.execution.modules import require_module
from bequest.execution.spans import spans

_WRAPPERS = {
    "OptimizedModule": "a compiled model; pass the original module (model._orig_mod)",
    "DistributedDataParallel": "wrapped in DistributedDataParallel; pass model.module",
    "DataParallel": "wrapped in DataParallel; pass model.module",
    "FullyShardedDataParallel": "wrapped in FullyShardedDataParallel; pass the unsharded module",
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_WATCHING = frozenset(
    {
        "bequest.execution.caches",
        "transformers.utils.output_capturing",
        "torch.utils.module_tracker",
    }
)
"""Modules of libraries whose hooks only note what passes, whatever its width.

transformers hangs one on every block when hidden states are first asked for, and on backbones when
they are made. They stay on copies: the code counts on them.
"""


def admit(model: nn.Module) -> None:
    """Refuses what can't be pruned right, before anything is traced.

    Raises:
        UsageError: ``model`` is no module.
        ModelError: it is scripted, compiled, wrapped, quantised or parametrised, has hooks, or has
            weights that are not finite floating-point numbers. The message names the module.
    """
    require_module(model)
    for name, module in model.named_modules():
        _admit_module(name or type(model).__name__, module)
    _refuse_hooks(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, FakeTensor):
            raise ModelError(
                f"'{name}' is a tensor without data, which an export or a compilation has left "
                "there; load the model anew"
            )
        if hasattr(tensor, "__tensor_flatten__"):  # a class of tensors that holds others
            raise ModelError(
                f"'{name}' is packed in a {type(tensor).__name__} (quantised or sharded); prune "
                "the plain floating-point model, and pack what comes out"
            )
        if tensor.layout != torch.strided:
            raise ModelError(
                f"'{name}' has the layout {tensor.layout}; expected a dense tensor: store it as "
                "tensor.to_dense()"
            )
    for name, parameter in model.named_parameters():
        _admit_weight(name, parameter)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and not _finite(buffer):
            raise ModelError(f"buffer '{name}' holds NaN or infinite values; load sound weights")


def _admit_module(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"'{name}' is scripted (TorchScript); pass the Python module it came from")
    if advice := _WRAPPERS.get(kind):
        raise ModelError(f"'{name}' is {advice}")
    if type(module).__module__.startswith(("torch.ao.nn", "torch.nn.quantized")):
        raise ModelError(f"'{name}' is quantised ({kind}); prune the floating-point model first")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters(False)):
        raise ModelError(f"'{name}' has no shape yet (a lazy module); run the model once")
    if parametrize.is_parametrized(module):
        raise ModelError(
            f"'{name}' has parametrised weights ({', '.join(module.parametrizations)}); call "  # type: ignore[arg-type]
            "torch.nn.utils.parametrize.remove_parametrizations on it first"
        )


def _refuse_hooks(model: nn.Module) -> None:
    """Raises ModelError with all hooks that may depend on what leaves, each by name."""
    found = [
        f"'{name or type(model).__name__}' carries a hook ({_called(hook)}, {attribute.strip('_')})"
        for name, module in model.named_modules()
        for attribute in _HOOKS
        for hook in _strange(getattr(module, attribute, None))
    ]
    found += [
        f"every module of the process carries a hook ({_called(hook)}, {attribute.strip('_')})"
        for attribute in ("_global_forward_hooks", "_global_forward_pre_hooks")
        for hook in _strange(getattr(nn.modules.module, attribute))
    ]
    if found:
        raise ModelError(
            f"{'; '.join(found)}. A hook may depend on the channels that leave; remove it "
            "(weight_norm, spectral_norm and nn.utils.prune: with their remove functions) and add "
            "it again afterwards; a model with observers is to be pruned before they come"
        )
    wrapped = [name or "the model" for name, m in model.named_modules() if hasattr(m, "_hf_hook")]
    if wrapped:
        raise ModelError(
            f"accelerate has replaced the forward of {', '.join(wrapped)}; call "
            "accelerate.hooks.remove_hook_from_submodules(model), or load the model without "
            "device_map"
        )


def _strange(hooks: Mapping[int, Callable[..., Any]] | None) -> Iterator[Callable[..., Any]]:
    """Hooks but those of :data:`_WATCHING`."""
    for hook in (hooks or {}).values():
        if getattr(hook, "__module__", None) not in _WATCHING:
            yield hook


def _called(hook: Callable[..., Any]) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)


def _admit_weight(name: str, parameter: nn.Parameter) -> None:
    if parameter.is_meta:
        raise ModelError(
            f"parameter '{name}' is on the meta device and has no values; load weights"
        )
    if parameter.is_complex() or not parameter.is_floating_point():
        raise ModelError(
            f"parameter '{name}' has the dtype {parameter.dtype}; expected floating-point weights"
        )
    if not _finite(parameter):
        raise ModelError(f"parameter '{name}' holds NaN or infinite values; load sound weights")


def _finite(tensor: Tensor) -> bool:
    # A sum is finite only if no term is NaN or infinite; it needs no second tensor of that size.
    rows = tensor.detach() if tensor.ndim else tensor.detach()[None]
    return all(bool(rows[part].sum(dtype=torch.float64).isfinite()) for part in spans(rows))
