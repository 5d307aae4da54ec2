"""Runs a traced network, operator by operator, on other values than those it was traced with.

The dense network, the pruned one, the dense one with channels set to zero, tensors without data,
intervals: the same loop over the same graph. What differs is what a placeholder holds and what
becomes of an operator, which children of :class:`Interpreter` say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from bequest.execution.precision import HALF
from bequest.graph.schedule import last_uses
from bequest.graph.trace import Network, function_of, operator_of


class Interpreter:
    """A value for each node of a traced network.

    A child has a :meth:`tensor` and a :meth:`constant`, and may change the :meth:`arguments` of
    operators or do something else in the place of an :meth:`operator`.

    Args:
        network: the traced graph.
        device: where tensors are made that the network's code makes.
        precision: of floating-point numbers where the graph asks for half precision; None = as it
            asks.

    Attributes:
        network: the same.
        device: the same.
        precision: the same.
        values: node → its value, from when it has run until nothing reads it any more. Nodes that
            have none, such as assertions, are not in it.
    """

    keeps = False
    """Whether values stay when nothing reads them any more."""

    def __init__(
        self, network: Network, device: torch.device, precision: torch.dtype | None = None
    ) -> None:
        self.network = network
        self.device = device
        self.precision = precision
        self.values: dict[fx.Node, Any] = {}

    def interpret(self, inputs: Iterable[Any] = (), after: fx.Node | None = None) -> None:
        """Gives the nodes their values in turn; those that the network returns stay.

        Args:
            inputs: a value for each input tensor of the network, in order.
            after: begins behind this node; None = at the first. Earlier nodes have their values.
        """
        nodes = self.network.nodes[:-1]
        feeds, last = iter(inputs), {} if self.keeps else last_uses(self.network.nodes)
        for node in nodes if after is None else nodes[nodes.index(after) + 1 :]:
            held = node.op == "placeholder"
            value = self.placeholder(node, feeds) if held else self.operator(node)
            if value is not None:
                self.values[node] = value
            for done in last.get(node, ()):
                self.values.pop(done, None)

    def placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> Any:
        """A tensor of the model, the next input, or a tensor that the code makes; else None."""
        name = self.network.tensors.get(node.name)
        if name is not None:
            return self.tensor(name)
        if node.name in self.network.inputs:
            return next(feeds)
        constant = self.network.constants.get(node.name)
        return None if constant is None else self.constant(constant)

    def tensor(self, name: str) -> Any:
        """The value of a parameter or buffer, by its qualified name."""
        raise NotImplementedError

    def constant(self, tensor: Tensor) -> Any:
        """The value of a tensor that the network's code makes."""
        raise NotImplementedError

    def operator(self, node: fx.Node) -> Any:
        """The value of an operator."""
        return self.apply(node, *self.arguments(node, self.value))

    def value(self, node: fx.Node) -> Any:
        """The value of an operand."""
        return self.values[node]

    def arguments(
        self, node: fx.Node, value: Callable[[fx.Node], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """An operator's arguments, positional and named, with values in the place of nodes."""

        def pick(given: Any) -> Any:
            if isinstance(given, fx.Node):
                return value(given)
            return self.precision if self.precision is not None and given in HALF else given

        args = list(fx.node.map_aggregate(node.args, pick))
        kwargs: Any = dict(fx.node.map_aggregate(node.kwargs, pick))
        if kwargs.get("device") is not None:  # of a tensor that is made
            kwargs["device"] = self.device
        return args, kwargs

    def apply(self, node: fx.Node, args: Iterable[Any], kwargs: Any) -> Any:
        """What the operator makes of arguments; nothing of one that states the trace's types."""
        if operator_of(node) == "_assert_tensor_metadata":
            return None
        return function_of(node)(*args, **kwargs)


class Traced(Interpreter):
    """The network itself, in one precision whatever its code asks for.

    Args:
        network: the traced graph.
        tensors: qualified name → parameter or buffer.
        device: of all tensors.
        precision: of floating-point numbers.
    """

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        super().__init__(network, device, precision)
        self._tensors = tensors

    def run(self, inputs: Iterable[Any]) -> list[Any]:
        """What the network returns: its results in order.

        Args:
            inputs: a value for every input tensor of the graph, in order.
        """
        self.interpret(inputs)
        returned: Any = self.network.output.args[0]
        return [self.values[one] if isinstance(one, fx.Node) else one for one in returned]

    def tensor(self, name: str) -> Tensor:
        """The same in the precision of this run."""
        return self.constant(self._tensors[name].detach())

    def constant(self, tensor: Tensor) -> Tensor:
        """The same in the precision of this run."""
        tensor = tensor.to(self.device)
        return tensor.to(self.precision) if tensor.is_floating_point() else tensor
