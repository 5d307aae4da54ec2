"""How a layer meets its inputs: kernel, stride, padding and groups, as its *operator* has them.

The module that holds a weight needn't be the one that applies it: ``F.conv2d(x, layer.weight,
stride=2)`` has nothing of ``layer`` but the numbers. So nothing is read from modules here.
(:class:`bequest.sparse.geometry.LayerGeometry` is that of a module, and applies it.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import fx

from bequest.graph.products import parameter_of
from bequest.graph.trace import operator_of

LAYERS = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split()
)
"""Operators that multiply inputs with a weight: arguments 0, 1 and 2 are input, weight and bias."""


@dataclass(frozen=True)
class Geometry:
    """Which inputs a linear layer or a convolution reads for each of its outputs.

    All sizes are per dimension of space, of which a linear layer has none.

    Attributes:
        linear: a linear layer: its channels lie in the last dimension.
        kernel: positions.
        stride: steps of the kernel; of a transposed convolution, steps of the outputs.
        padding: zeros on each side, or "same" or "valid"; of a transposed convolution, outputs left
            out there.
        dilation: steps between the kernel's positions.
        groups: blocks of outputs that read a block of inputs each.
        transposed: inputs and outputs change places; of a linear layer, in its weight.
    """

    linear: bool
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    @property
    def pads(self) -> bool:
        """Whether there may be zeros around the inputs."""
        return self.padding == "same" or (self.padding != "valid" and any(self.padding))

    @property
    def before(self) -> tuple[int, ...]:
        """Zeros before the first input; of a transposed convolution, outputs left out there."""
        if self.padding == "valid":
            return (0,) * len(self.kernel)
        if isinstance(self.padding, str):  # "same": an odd number has one more of them behind
            sizes = zip(self.dilation, self.kernel, strict=True)
            return tuple(dilation * (kernel - 1) // 2 for dilation, kernel in sizes)
        return self.padding


def geometry_of(node: fx.Node, groups: int | None = None) -> Geometry:
    """The geometry of one of the operators :data:`LAYERS`.

    Args:
        node: the operator.
        groups: how many it has after pruning, where that differs.
    """
    name, given = operator_of(node), arguments(node)
    if name == "linear":
        return Geometry(linear=True, transposed=parameter_of(given["weight"])[1])
    kernel, padding = tuple(given["weight"].meta["val"].shape[2:]), given["padding"]
    return Geometry(
        linear=False,
        kernel=kernel,
        stride=_each(given["stride"], len(kernel)),
        padding=padding if isinstance(padding, str) else _each(padding, len(kernel)),
        dilation=_each(given["dilation"], len(kernel)),
        groups=int(given["groups"]) if groups is None else groups,
        transposed="transpose" in name,
    )


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen operator by name, those that weren't given at their defaults."""
    names, defaults = _signature(node.target)
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


@cache
def _signature(operator: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of an operator's arguments in order, and their defaults."""
    schema = operator._schema.arguments
    defaults = {one.name: one.default_value for one in schema if one.has_default_value()}
    return tuple(one.name for one in schema), defaults


def _each(value: Any, count: int) -> tuple[int, ...]:
    """One number per dimension; a single one counts for all."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values
