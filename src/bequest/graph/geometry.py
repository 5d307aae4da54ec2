"""How a layer meets its inputs: kernel, stride, padding and groups, as its *operator* has them.

The module that holds a weight needn't be the one that applies it: ``F.conv2d(x, layer.weight,
stride=2)`` has nothing of ``layer`` but the numbers. So nothing is read from modules here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import fx

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
        before: zeros before the first input; of a transposed convolution, outputs left out there.
        dilation: steps between the kernel's positions.
        groups: blocks of outputs that read a block of inputs each.
        transposed: inputs and outputs change places.
    """

    linear: bool
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    @classmethod
    def of(cls, node: fx.Node, groups: int | None = None) -> Geometry:
        """The geometry of one of the operators :data:`LAYERS`.

        Args:
            node: the operator.
            groups: how many it has after pruning, where that differs.
        """
        name, given = operator_of(node), arguments(node)
        if name == "linear":
            return cls(linear=True)
        kernel = tuple(given["weight"].meta["val"].shape[2:])
        dilation = _each(given["dilation"], len(kernel))
        return cls(
            linear=False,
            kernel=kernel,
            stride=_each(given["stride"], len(kernel)),
            before=_before(given["padding"], kernel, dilation),
            dilation=dilation,
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


def _before(padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    if padding == "valid":
        return (0,) * len(kernel)
    if padding == "same":  # an odd number of zeros has one more of them behind
        return tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    return _each(padding, len(kernel))
