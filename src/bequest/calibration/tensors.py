"""A network's tensors in the precision of a walk, none of them held twice for long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from bequest.execution.precision import rounded
from bequest.graph.trace import named_tensors

KEPT = 4
"""Converted tensors that are kept for those who read them again: of a layer or two."""


class Tensors(Mapping[str, Tensor]):
    """Qualified name → parameter or buffer, in the precision that is worked in.

    Those of another floating-point type are converted whenever they are read: a network in half
    precision is never held in single precision as a whole.

    Args:
        model: holds them, in its own types.
        precision: that is worked in.
    """

    def __init__(self, model: nn.Module, precision: torch.dtype) -> None:
        self.held = named_tensors(model)
        self.precision = precision
        self._converted: OrderedDict[str, Tensor] = OrderedDict()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.held[name]
        if not tensor.is_floating_point() or tensor.dtype == self.precision:
            return tensor
        found = self._converted.pop(name, None)
        self._converted[name] = tensor.detach().to(self.precision) if found is None else found
        if len(self._converted) > KEPT:
            self._converted.popitem(last=False)
        return self._converted[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)

    def write(self, name: str, values: Tensor, cause: str) -> None:
        """Gives a tensor other values, rounded to its own type.

        Args:
            name: of the tensor.
            values: of its shape, in any floating-point type.
            cause: what made them, for the message.

        Raises:
            ModelError: one is too large for the type.
        """
        tensor = self.held[name].detach()
        precise = values.to(self.precision)
        tensor.copy_(rounded(name, precise, tensor.dtype, cause))
        self._converted.pop(name, None)
