"""The values of one network in a walk, chunk of inputs by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from bequest.calibration.spill import Mapped
from bequest.errors import UsageError
from bequest.execution.modules import first_lines
from bequest.execution.precision import HALF
from bequest.graph.interpreter import Interpreter
from bequest.graph.trace import Network, place_of

Chunks = Sequence[Any]
"""A node's value: one entry per chunk of inputs; one entry alone if it depends on no input."""

Adapt = Callable[[list[Any]], list[Any]]
"""Changes an operator's arguments before it runs."""


class Stream(Interpreter):
    """One network, each of whose values is :data:`Chunks`.

    Args:
        network: the traced graph.
        tensors: qualified name → parameter or buffer; they may change on the way.
        device: of all tensors.
        precision: of floating-point numbers.
        adapt: operator → what changes its arguments.

    Attributes:
        tensors: the same.
    """

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        precision: torch.dtype,
        adapt: Callable[[fx.Node], Adapt] = lambda _: list,
    ) -> None:
        super().__init__(network, device, precision)
        self.tensors = tensors
        self._adapt = adapt

    def tensor(self, name: str) -> Chunks:
        """The same for all inputs, looked up whenever it is asked for."""
        tensors = self.tensors  # not the stream: its values would outlive it, holding each other
        return Mapped(lambda _: tensors[name], 1)

    def constant(self, tensor: Tensor) -> Chunks:
        """The same for all inputs."""
        return [tensor.to(self.device, self.precision if tensor.dtype in HALF else tensor.dtype)]

    def operator(self, node: fx.Node) -> Chunks:
        """All chunks."""
        return list(self.chunks(node, self._adapt(node)))

    def chunks(self, node: fx.Node, adapt: Adapt = list) -> Iterator[Any]:
        """The operator on every chunk; once, where no operand depends on the inputs."""
        for number in range(self.count(node)):
            yield self.chunk(node, number, adapt)

    def at(self, node: fx.Node, number: int) -> Any:
        """A value's chunk of that number; the only one, where it depends on no input."""
        held = self.values[node]
        return held[number if len(held) > 1 else 0]

    def count(self, node: fx.Node) -> int:
        """Of an operator's chunks: those of its operands."""
        operands = [self.values[value] for value in node.all_input_nodes if value in self.values]
        return max(map(len, operands), default=1)

    def chunk(self, node: fx.Node, number: int, adapt: Adapt = list) -> Any:
        """The operator on one chunk.

        Raises:
            UsageError: it doesn't run on it.
        """
        args, kwargs = self.arguments(node, partial(self.at, number=number))
        try:
            return self.apply(node, adapt(args), kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever an operator says to numbers, such as places
            raise UsageError(
                f"{place_of(node)} does not run on the inputs that layers are refitted to: "
                f"{first_lines(error).rstrip('.')}. Give others with data=, or take a weight-space "
                "restorer such as 'lbyl'"
            ) from error
