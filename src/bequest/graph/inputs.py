"""What a network is called with: the example inputs, taken apart and checked in one place.

Example inputs are a tensor, a tuple of arguments or a dict of keyword arguments; in these, tensors
may lie in tuples, lists and dicts of any depth (:mod:`torch.utils._pytree`), beside numbers, texts
and None. Everything that looks at inputs takes their tensors in the order in which they are met,
the order of a traced network's placeholders, and puts other tensors in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map_only

from bequest.errors import UsageError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a network."""


def normalise_inputs(example_inputs: Any) -> Inputs:
    """Positional and keyword inputs from a tensor, a tuple (or list), or a dict.

    Their tensors are plain: without a gradient and with memory of their own for every element.

    Raises:
        UsageError: the inputs are none of these, hold no tensor, are keyed by something else than
            names, or hold tensors that are not dense.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, Tensor):
        args = (example_inputs,)
    elif isinstance(example_inputs, tuple | list):
        args = tuple(example_inputs)
    elif isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    if not any(isinstance(value, Tensor) for value in tree_leaves((args, kwargs))):
        raise UsageError(
            "example_inputs: expected a tensor, or a tuple or dict with at least one tensor, "
            f"found {type(example_inputs).__name__}"
        )
    if not all(isinstance(name, str) for name in kwargs):
        raise UsageError(
            "example_inputs: expected a dict of the names of forward's arguments, found the keys "
            f"{list(kwargs)}"
        )
    inputs: Inputs = mapped((args, kwargs), _plain)
    return inputs


def mapped(inputs: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same structure with ``function`` of each tensor; all else stays."""
    return tree_map_only(Tensor, function, inputs)


def tensors_of(inputs: Any) -> list[Tensor]:
    """The tensors of inputs of any structure, in order."""
    return [value for value in tree_leaves(inputs) if isinstance(value, Tensor)]


def with_tensors(example_inputs: Any, tensors: Iterable[Tensor]) -> Any:
    """The example with other tensors in the places of its own: a tuple, or a dict."""
    args, kwargs = normalise_inputs(example_inputs)
    given = iter(tensors)
    return mapped(kwargs or args, lambda _: next(given))


def require_dense(tensor: Tensor, whose: str) -> None:
    """Refuses tensors that are stored in a way which few operators read.

    Raises:
        UsageError: it is sparse, nested or quantised.
    """
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        raise UsageError(
            f"{whose}: expected dense tensors, found one that is sparse, nested or quantised; give "
            "what to_dense(), to_padded_tensor() or dequantize() makes of it"
        )


def _plain(tensor: Tensor) -> Tensor:
    if isinstance(tensor, FakeTensor):
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    require_dense(tensor, "example_inputs")
    tensor = tensor.detach()
    # Where elements share memory, code that writes into its input would fail.
    shared = any(step == 0 and n > 1 for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.clone(memory_format=torch.contiguous_format) if shared else tensor
