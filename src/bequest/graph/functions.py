"""What lies between a producer and the layers that read it, as one function of an element.

Several operators may make up the function, and read a value more than once: ``x + x.sin() ** 2``.
Numbers in it may be the network's own, one for all channels: a slope, say.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx

from bequest.graph.reading import Reading
from bequest.graph.rules.elementwise import is_copy, is_homogeneous
from bequest.graph.trace import operator_of, place_of
from bequest.graph.units import Activation

PASSABLE = frozenset({"activation", "elementwise", "linear", "pad", "monotone", "norm"})
"""Roles of the operators that a path may go on behind."""


class ObstacleError(Exception):
    """Why a group is no restorable unit."""


@dataclass(frozen=True)
class Path:
    """What lies between the producer and a node.

    Attributes:
        norm: a batch norm, before any function.
        moves: operators on the way that are no functions of an element: views, pooling, padding.
        function: its number in the :class:`Functions` of the producer.
        padded: whether zeros were brought in.
    """

    norm: fx.Node | None = None
    moves: tuple[fx.Node, ...] = ()
    function: int = 0
    padded: bool = False


class _Step(NamedTuple):
    """A function's last operator, the functions that it reads, and whether f(s·x) = s·f(x)."""

    node: fx.Node
    read: Mapping[fx.Node, int]
    homogeneous: bool


class Functions:
    """All functions of what a producer writes, each once: those that compute the same are one.

    Number 0 is the identity.

    Args:
        reading: of the network.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._steps: dict[int, _Step] = {}
        self._numbers: dict[tuple[str, str], int] = {}

    def passed(self, node: fx.Node, paths: Mapping[fx.Node, Path]) -> Path:
        """The path behind an operator.

        Args:
            node: the operator.
            paths: of those of its operands that depend on the producer.

        Raises:
            ObstacleError: a unit's path can't go on behind it.
        """
        role = self._reading.roles.get(node)
        path, *others = paths.values()
        if node.op == "output":
            raise ObstacleError("its channels reach the network's output")
        if role in ("activation", "elementwise") and self._is_function(node, paths):
            return Path(path.norm, path.moves, self._number(node, paths), path.padded)
        if others or role not in PASSABLE - {"activation", "elementwise"}:
            raise ObstacleError(f"{place_of(node)} lies between producer and consumer")
        if role == "norm":
            if path.norm is not None or path.function:
                reason = f"a batch norm follows a norm or an activation ({place_of(node)})"
                raise ObstacleError(reason)
            return Path(node, path.moves, 0, path.padded)
        if is_copy(node):
            return path
        function = self._number(node, paths) if role == "monotone" else path.function
        return Path(path.norm, (*path.moves, node), function, path.padded or role == "pad")

    def activation(self, function: int, tensors: Mapping[str, Tensor]) -> Activation:
        """A function by its number; ``tensors`` are the network's by name."""
        if not function:
            return Activation("identity", lambda x: x, homogeneous=True)
        steps = {number: self._steps[number] for number in self._needed(function)}
        name = "∘".join(_name(steps[number].node) for number in sorted(steps, reverse=True))

        def apply(x: Tensor) -> Tensor:
            values = {0: x}
            for number in sorted(steps):
                values[number] = self._applied(steps[number], values, tensors)
            return values[function]

        return Activation(name, apply, steps[function].homogeneous)

    def _is_function(self, node: fx.Node, paths: Mapping[fx.Node, Path]) -> bool:
        """Whether it maps element by element, of values on paths that moved alike, and numbers."""
        alike = {(path.norm, path.moves, path.padded) for path in paths.values()}
        size = _size(node)
        return len(alike) == 1 and all(
            _size(one) == size if one in paths else _size(one) == 1 and self._is_known(one)
            for one in node.all_input_nodes
        )

    def _is_known(self, node: fx.Node) -> bool:
        """Whether a value follows from the network's tensors alone, by functions of an element."""
        network = self._reading.network
        if node.op == "placeholder":
            made = network.constants.get(node.name)
            return node.name in network.tensors or (made is not None and not made.is_meta)
        known = self._reading.roles.get(node) in ("activation", "elementwise")
        return (known or is_copy(node)) and all(map(self._is_known, node.all_input_nodes))

    def _number(self, node: fx.Node, paths: Mapping[fx.Node, Path]) -> int:
        read = {one: path.function for one, path in paths.items()}

        given = fx.map_arg((node.args, node.kwargs), lambda one: read.get(one, one.name))
        key = str(node.target), repr(given)
        if key not in self._numbers:
            scaled = all(not number or self._steps[number].homogeneous for number in read.values())
            number = self._numbers[key] = len(self._numbers) + 1
            self._steps[number] = _Step(node, read, scaled and _keeps_multiples(node, read))
        return self._numbers[key]

    def _needed(self, function: int) -> set[int]:
        """The function itself and all that it is made of."""
        needed, pending = {function}, [function]
        while pending:
            read = set(self._steps[pending.pop()].read.values()) - needed - {0}
            needed |= read
            pending += read
        return needed

    def _applied(
        self, step: _Step, values: Mapping[int, Tensor], tensors: Mapping[str, Tensor]
    ) -> Tensor:
        x = next(values[number] for number in step.read.values())
        if "max_pool" in operator_of(step.node):
            return x  # the identity on constants; keeps positive multiples, not sums

        def value(one: fx.Node) -> Tensor:
            return values[step.read[one]] if one in step.read else self._known(one, x, tensors)

        return _run(step.node, value)

    def _known(self, node: fx.Node, like: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        network = self._reading.network
        if node.op == "placeholder":
            name = network.tensors.get(node.name)
            held = network.constants[node.name] if name is None else tensors[name]
            return held.detach().to(like).reshape(())
        if is_copy(node):
            return self._known(node.all_input_nodes[0], like, tensors)
        return _run(node, lambda one: self._known(one, like, tensors))


def _run(node: fx.Node, value: Callable[[fx.Node], Tensor]) -> Tensor:
    """The operator itself on other values."""
    args, kwargs = fx.map_arg((node.args, node.kwargs), value)
    result = node.target(*args, **kwargs)  # type: ignore[operator]
    first: Tensor = result[0] if isinstance(result, tuple) else result
    return first


def _keeps_multiples(node: fx.Node, read: Mapping[fx.Node, int]) -> bool:
    """Whether f(s·x) = s·f(x) for every s > 0 where all that is read scales with x."""
    name = operator_of(node)
    scaled = [one in read for one in node.args]
    if scaled.count(True) > 1:
        return name in ("add", "sub", "maximum", "minimum") and all(scaled)
    return "max_pool" in name or (is_homogeneous(node) and (scaled[0] or name == "mul"))


def _name(node: fx.Node) -> str:
    return "max_pool" if "max_pool" in operator_of(node) else operator_of(node)


def _size(node: fx.Node) -> Hashable:
    """Number of elements of the (first) value; an expression where the values decide on it."""
    value = node.meta["val"]
    size = (value[0] if isinstance(value, tuple | list) else value).numel()
    return size.node.expr if isinstance(size, torch.SymInt) else int(size)
