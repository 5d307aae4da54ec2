"""Which numbers among an operator's arguments are widths, and what they become.

The traced graph holds the dense network's sizes as constants. Operators whose arguments are sizes
or positions along channels have a function here, or in the file of their rule; the arguments of all
others stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import fx

from bequest.graph.geometry import LAYERS, arguments, geometry_of
from bequest.graph.ledger import Labels, Layout
from bequest.graph.trace import operator_of


class Narrowed(Protocol):
    """The network without some of its channels: a :class:`bequest.surgery.cut.Cut`."""

    def layout(self, node: fx.Node) -> Layout | tuple[Layout, ...]:
        """Where the channels of a node's value are."""

    def shape(self, node: fx.Node) -> list[int]:
        """The new shape of a node's (first) value."""

    def shapes(self, node: fx.Node) -> list[list[int]]:
        """Those of the values of a node that has several."""

    def gone(self, labels: Labels) -> NDArray[np.bool_]:
        """Which of the labels leave."""


Widths = Callable[[fx.Node, Narrowed], dict[int, Any]]
"""The arguments that change, by position; those behind the last may be left out."""

_WIDTHS: dict[str, Widths] = {}


def widths(*operators: str) -> Callable[[Widths], Widths]:
    """Files a function for ATen operators (names without ``aten::`` and overload)."""

    def file(function: Widths) -> Widths:
        _WIDTHS.update(dict.fromkeys(operators, function))
        return function

    return file


def widths_of(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """Arguments of an operator that are sizes or positions along channels, at the new widths."""
    function = _WIDTHS.get(operator_of(node))
    return {} if function is None else function(node, narrowed)


@widths("view", "_unsafe_view", "reshape", "expand")
def shape(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The shape; a view of the same numbers as another type has none."""
    return {} if str(node.target) == "aten.view.dtype" else {1: narrowed.shape(node)}


@widths("split", "split_with_sizes")
def parts(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The size of each part; of all parts where one number says it, before and after."""
    dim = int(arguments(node)["dim"]) % int(node.meta["val"][0].ndim)
    sizes = [one[dim] for one in narrowed.shapes(node)]
    one_size = len(set(sizes[:-1])) < 2 and sizes[-1] <= sizes[0]
    return {1: sizes[0] if operator_of(node) == "split" and one_size else sizes}


@widths("slice", "slice_scatter")
def bounds(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """Dimension, start and end, counted in channels that stay; runs of a step leave whole."""
    source, given = node.args[0], arguments(node)
    assert isinstance(source, fx.Node)
    layout = narrowed.layout(source)
    assert isinstance(layout, Layout)
    dim = int(given["dim"]) % len(layout.dims)
    labels = layout.dims[dim]
    if labels is None:
        return {}
    start, stop, _ = slice(given["start"], given["end"]).indices(len(labels))
    stays = ~narrowed.gone(labels)
    first = 1 if operator_of(node) == "slice" else 2  # behind the tensor that is written
    return {
        first: dim,
        first + 1: int(stays[:start].sum()) if given["step"] == 1 else start,
        first + 2: int(stays[:stop].sum()),
    }


@widths("layer_norm", "native_layer_norm", "rms_norm")
def normalised(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The sizes of the dimensions that are normalised together."""
    dense: Any = node.args[1]
    return {1: narrowed.shape(node)[-len(dense) :]}


@widths("group_norm")
def blocks(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The number of blocks where each is a channel."""
    each = node.args[1] == node.meta["val"].shape[1]
    return {1: narrowed.shape(node)[1]} if each else {}


@widths("native_group_norm")
def channels_and_blocks(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The number of channels; that of blocks too where each is a channel."""
    data: Any = node.args[0]
    width, given = narrowed.shape(data)[1], node.args[6]
    return {4: width, 6: width if given == data.meta["val"].shape[1] else given}


@widths(*LAYERS)
def groups(node: fx.Node, narrowed: Narrowed) -> dict[int, Any]:
    """The number of groups of a depthwise convolution."""
    weight = arguments(node)["weight"].meta["val"]
    if geometry_of(node).groups == 1 or weight.shape[1] != 1:
        return {}
    data: Any = node.args[0]
    return {6: narrowed.shape(data)[1 - len(data.meta["val"].shape)]}
