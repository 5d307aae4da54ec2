"""What may differ from the example in an exported file: the batch, the size of images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from bequest.errors import UsageError
from bequest.graph.inputs import Inputs, mapped, normalise_inputs, tensors_of

DYNAMIC = ("batch", "size")

_FURTHER = 32  # by how much another size is larger: what strides of five stages divide


def shapes_of(example_inputs: Any, dynamic: Sequence[str]) -> list[Any]:
    """The example that is exported, and others that the file must take, too.

    A dimension of one can't be told from one that is fixed: the first has a batch of two at least.

    Args:
        example_inputs: a tensor, tuple or dict.
        dynamic: names of :data:`DYNAMIC`.

    Raises:
        UsageError: other names, or "size" without an image among the inputs.
    """
    listed = isinstance(dynamic, Collection) and not isinstance(dynamic, str)
    if not listed or not all(one in DYNAMIC for one in dynamic):
        raise UsageError(f"dynamic: expected a list of {', '.join(DYNAMIC)}; found {dynamic!r}")
    args, kwargs = normalise_inputs(example_inputs)
    given: Any = kwargs or args
    tensors = tensors_of((args, kwargs))
    if "size" in dynamic and not any(_is_image(one) for one in tensors):
        raise UsageError("dynamic: expected an image (B, C, H, W) among the inputs for 'size'")
    batch = _batch(tensors)
    shown = []
    if "batch" in dynamic:
        first = max(batch, 2)
        given = mapped(given, lambda one: _of_batch(one, batch, first))
        shown.append(mapped(given, lambda one: _of_batch(one, first, first + 1)))
        shown.append(mapped(given, lambda one: one[:1] if _counts(one, first) else one))
    if "size" in dynamic:
        shown.append(mapped(given, _larger))
    return [given, *shown]


def dynamic_shapes(inputs: Inputs, dynamic: Sequence[str]) -> Any:
    """The same as :func:`torch.onnx.export` takes it; None where nothing is dynamic."""
    if not dynamic:
        return None
    args, kwargs = inputs
    batch = _batch(tensors_of(inputs))

    def named(value: Any) -> dict[int, str] | None:
        if not isinstance(value, Tensor):
            return None
        dims = {0: "batch"} if "batch" in dynamic and _counts(value, batch) else {}
        return dims | ({2: "height", 3: "width"} if "size" in dynamic and _is_image(value) else {})

    return pytree.tree_map(named, kwargs or args)


def _batch(tensors: Sequence[Tensor]) -> int:
    return next((int(one.shape[0]) for one in tensors if one.ndim), 1)


def _counts(value: Tensor, batch: int) -> bool:
    """Whether a tensor's first dimension is the batch."""
    return value.ndim > 0 and value.shape[0] == batch


def _of_batch(value: Tensor, batch: int, wanted: int) -> Tensor:
    """The tensor with another number of samples."""
    if not _counts(value, batch):
        return value
    times = -(-wanted // batch)
    return torch.cat([value] * times)[:wanted]


def _is_image(value: Tensor) -> bool:
    return value.ndim == 4 and value.is_floating_point()


def _larger(value: Tensor) -> Tensor:
    """An image of another height and width."""
    if not _is_image(value):
        return value
    height, width = value.shape[2:]
    return value.new_zeros(*value.shape[:2], height + _FURTHER, width + 2 * _FURTHER)
