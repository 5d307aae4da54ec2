"""Copies of models: to be changed, or to be run in the place of one that isn't ours."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from bequest.errors import ModelError
from bequest.execution.caches import keep_no_cache
from bequest.execution.modules import first_lines
from bequest.execution.paging import let_go


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, to be run in the place of a model that isn't ours.

    Its parameters are the model's own memory, without gradients; everything else is its own: modes,
    hooks, buffers and attributes that ``forward`` sets. So nobody who looks at the model meanwhile,
    in another thread either, sees it change, and the copy costs no more than its buffers. It keeps
    no cache of keys and values.
    """
    return to_be_run(sharing_copy(model).requires_grad_(False))


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy whose parameters are the model's own memory: to be replaced, not to be written to.

    Everything else is its own. :func:`own_memory` takes the parameters that were left as they are
    out of the model's memory.
    """
    shared: dict[int, Any] = {  # .data: what later happens to a copy's tensor is not counted here
        id(one): nn.Parameter(_normal(one.data), requires_grad=one.requires_grad)
        for one in model.parameters()
    }
    return duplicate(model, shared)


def hollow_copy(model: nn.Module) -> nn.Module:
    """A copy that runs on real inputs and holds no numbers but the buffers': parameters are zeros.

    Each of them lies in the memory of a single number, so that nothing can be written to it.
    """
    zeros: dict[int, Any] = {
        id(one): nn.Parameter(one.new_zeros(()).expand(one.shape), requires_grad=one.requires_grad)
        for one in model.parameters()
    }
    return duplicate(model, zeros)


def own_memory(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Gives each tensor that lies in the memory of the other of its name memory of its own."""
    for name, tensor in tensors.items():
        if name in others and tensor.data_ptr() == others[name].data_ptr():
            tensor.data = tensor.data.clone()
            let_go(others[name])


def to_be_run(copied: nn.Module) -> nn.Module:
    """A copy in evaluation mode, that returns results alone."""
    keep_no_cache(copied)
    return copied.eval()


def _normal(tensor: Tensor) -> Tensor:
    """The tensor itself; a copy of one that inference mode has made, which takes no gradients."""
    return tensor.clone() if tensor.is_inference() else tensor


def duplicate(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """``copy.deepcopy``, also of a model whose attributes hold results of a forward pass.

    Args:
        model: any module.
        memo: id → what stands in the copy's place for it, as :func:`copy.deepcopy` takes it.

    Raises:
        ModelError: an attribute can't be copied; the message names it.
    """
    memo = {} if memo is None else memo
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                for held in pytree.tree_leaves(value):
                    if isinstance(held, FakeTensor):  # left by an export, without data to copy
                        memo.setdefault(id(held), held)
                    elif isinstance(held, Tensor) and not held.is_leaf:  # deepcopy takes leaves
                        memo.setdefault(id(held), held.detach().clone())
    try:
        return copy.deepcopy(model, memo)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # locks, open files and generators; whatever a class says to it
        raise ModelError(
            f"{type(model).__name__} can't be copied, and no model is changed in place: "
            f"{_uncopied(model)}{first_lines(error)}; take that off the model, or tell its class "
            "how to be copied (__deepcopy__)"
        ) from error


def _uncopied(model: nn.Module) -> str:
    """The first attribute of a module that can't be copied, by name."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, nn.Module) or attribute in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                return f"'{f'{name}.{attribute}'.lstrip('.')}' ({type(value).__name__}): "
    return ""
