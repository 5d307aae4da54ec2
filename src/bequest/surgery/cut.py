"""The network without some of its channels: what follows from who leaves.

The traced graph holds the dense network's sizes as constants. Operators whose arguments are sizes
or positions along channels get those that the layouts foresee; all others take what they meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from bequest.graph.geometry import LAYERS, arguments, geometry_of
from bequest.graph.groups import Channels, Group
from bequest.graph.ledger import Labels, Layout
from bequest.graph.trace import operator_of

_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "expand"})
_NORMS = frozenset({"layer_norm", "native_layer_norm", "rms_norm"})


Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Chosen:
    """A group that loses channels.

    Attributes:
        group: the group.
        keep: which of its channels stay, bool (n,).
        notes: what should be reported of the choice.
        predicted_error: what it was predicted to bring, relative; None = nobody asked.
    """

    group: Group
    keep: Mask
    notes: tuple[str, ...] = ()
    predicted_error: float | None = None


class Cut:
    """A network's channels, and which of them leave.

    Args:
        channels: the dense network's groups.
        leaving: for every channel id whether it leaves.
    """

    def __init__(self, channels: Channels, leaving: Mask) -> None:
        self.channels = channels
        self.leaving = leaving
        self._layouts = channels.reading.layouts

    @classmethod
    def of(cls, channels: Channels, chosen: Iterable[Chosen] = ()) -> Cut:
        """The cut that a selection makes; with none nobody leaves."""
        leaving = np.zeros(int(channels.channel_of.max(initial=0)) + 1, bool)
        for one in chosen:
            leaving[one.group.channels[~one.keep]] = True
        return cls(channels, leaving)

    def gone(self, labels: Labels) -> Mask:
        """Which of ``labels`` leave, bool of their shape."""
        gone: Mask = self.leaving[self.channels.channel_of[labels]]
        return gone

    def kept(self, labels: Labels) -> Tensor:
        """The indices that stay among ``labels``, int64."""
        return torch.from_numpy((~self.gone(labels)).nonzero()[0])

    def narrows(self, node: fx.Node) -> bool:
        """Whether channels leave among those that ``node`` writes."""
        layout = self._layouts.get(node)
        layouts = layout if isinstance(layout, tuple) else (layout,)
        return any(
            labels is not None and bool(self.gone(labels).any())
            for one in layouts
            if one is not None
            for labels in one.dims
        )

    def slice(self, node: fx.Node, value: Tensor) -> Tensor:
        """A dense value of ``node`` without the channels that leave."""
        layout = self._layouts[node]
        assert isinstance(layout, Layout)
        for dim in layout.tracked():
            labels = layout.dims[dim]
            assert labels is not None
            if self.gone(labels).any():
                value = value.index_select(dim, self.kept(labels).to(value.device))
        return value

    def shape(self, node: fx.Node) -> list[int]:
        """The shape of the node's (first) value without the channels that leave."""
        layout, value = self._layouts[node], node.meta["val"]
        if isinstance(layout, tuple):
            layout, value = layout[0], value[0]
        return self._sizes(layout, value)

    def arguments(self, node: fx.Node, args: list[Any]) -> list[Any]:
        """The operator's arguments, nodes already replaced by values, at the new widths."""
        for position, value in self.literals(node).items():
            args[position:] = [value, *args[position + 1 :]]
        return args

    def literals(self, node: fx.Node) -> dict[int, Any]:
        """Arguments that are sizes or positions along channels, by position, at the new widths."""
        name, args = operator_of(node), node.args
        found: dict[int, Any] = {}
        if name in _VIEWS and str(node.target) != "aten.view.dtype":
            found = {1: self.shape(node)}
        elif name == "split":
            found = {1: self.shape(node)[self._dim(node)]}
        elif name == "split_with_sizes":
            found = {1: self._parts(node)}
        elif name == "slice":
            found = self._bounds(node)
        elif name in _NORMS:
            count: Any = args[1]
            found = {1: self.shape(node)[-len(count) :]}
        elif name == "native_group_norm":
            found = self._native_group_norm(node)
        elif name == "group_norm" and args[1] == node.meta["val"].shape[1]:
            found = {1: self.shape(node)[1]}
        elif name in LAYERS and _is_depthwise(node):
            data: Any = args[0]
            found = {6: self.shape(data)[1 - len(data.meta["val"].shape)]}
        return found

    def _sizes(self, layout: Layout, value: Tensor) -> list[int]:
        return [
            size if labels is None else size - int(self.gone(labels).sum())
            for size, labels in zip(value.shape, layout.dims, strict=True)
        ]

    def _parts(self, node: fx.Node) -> list[int]:
        dim, layouts = self._dim(node), self._layouts[node]
        assert isinstance(layouts, tuple)
        pairs = zip(layouts, node.meta["val"], strict=True)
        return [self._sizes(one, value)[dim] for one, value in pairs]

    def _native_group_norm(self, node: fx.Node) -> dict[int, Any]:
        """The number of channels; that of blocks too where each is a channel."""
        data: Any = node.args[0]
        width = self.shape(data)[1]
        blocks: Any = node.args[6]
        return {4: width, 6: width if blocks == data.meta["val"].shape[1] else blocks}

    def _dim(self, node: fx.Node) -> int:
        first = node.meta["val"][0]
        return int(arguments(node)["dim"]) % int(first.ndim)

    def _bounds(self, node: fx.Node) -> dict[int, Any]:
        """Start and end of a slice of channels, counted in channels that stay."""
        source, given = node.args[0], arguments(node)
        assert isinstance(source, fx.Node)
        layout = self._layouts[source]
        assert isinstance(layout, Layout)
        dim = int(given["dim"]) % len(layout.dims)
        labels = layout.dims[dim]
        if labels is None:
            return {}
        start, stop, _ = slice(given["start"], given["end"]).indices(len(labels))
        stays = ~self.gone(labels)
        return {1: dim, 2: int(stays[:start].sum()), 3: int(stays[:stop].sum())}


def _is_depthwise(node: fx.Node) -> bool:
    weight = arguments(node)["weight"].meta["val"]
    return geometry_of(node).groups > 1 and weight.shape[1] == 1
