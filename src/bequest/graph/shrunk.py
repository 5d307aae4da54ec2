"""Runs single operators of the traced graph at the widths that are left after pruning."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from bequest.graph.groups import Channels
from bequest.graph.ledger import Labels, Layout
from bequest.graph.trace import operator_of

_CONVOLUTIONS = frozenset(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "expand"})


class Shrunk:
    """The traced graph without the channels that leave.

    The graph holds the dense network's sizes as constants. Operators whose arguments are sizes or
    positions along channels get those that the layouts foresee; all others take what they meet.
    """

    def __init__(self, channels: Channels, leaving: NDArray[Any]) -> None:
        self._layouts = channels.reading.layouts
        self._channel_of = channels.channel_of
        self._leaving = leaving

    def kept(self, labels: Labels) -> Tensor:
        """The indices that stay among ``labels``, int64."""
        return torch.from_numpy((~self._gone(labels)).nonzero()[0])

    def slice(self, node: fx.Node, value: Tensor) -> Tensor:
        """A dense value of ``node`` without the channels that leave."""
        layout = self._layouts[node]
        assert isinstance(layout, Layout)
        for dim in layout.tracked():
            labels = layout.dims[dim]
            assert labels is not None
            if self._gone(labels).any():
                value = value.index_select(dim, self.kept(labels).to(value.device))
        return value

    def arguments(self, node: fx.Node, args: list[Any]) -> list[Any]:
        """The operator's arguments, nodes already replaced by values, at the new widths."""
        name = operator_of(node)
        if name in _VIEWS:
            args[1] = self._shape(node)
        elif name == "split":
            args[1] = self._shape(node)[self._dim(node, args, 2)]
        elif name == "split_with_sizes":
            dim = self._dim(node, args, 2)
            layouts = self._layouts[node]
            values = node.meta["val"]
            assert isinstance(layouts, tuple)
            args[1] = [
                self._sizes(one, value)[dim] for one, value in zip(layouts, values, strict=True)
            ]
        elif name == "slice":
            args = self._bounds(node, args)
        elif name in ("layer_norm", "native_layer_norm", "rms_norm"):
            args[1] = self._shape(node)[-len(args[1]) :]
        elif name == "group_norm" and args[1] == node.meta["val"].shape[1]:
            args[1] = self._shape(node)[1]
        elif name in _CONVOLUTIONS and len(args) > 6 and args[6] > 1 and args[1].shape[1] == 1:
            args[6] = args[0].shape[1 - args[1].ndim]  # depthwise: a group per channel
        return args

    def _gone(self, labels: Labels) -> NDArray[Any]:
        gone: NDArray[Any] = self._leaving[self._channel_of[labels]]
        return gone

    def _shape(self, node: fx.Node) -> list[int]:
        layout, value = self._layouts[node], node.meta["val"]
        if isinstance(layout, tuple):
            layout, value = layout[0], value[0]
        return self._sizes(layout, value)

    def _sizes(self, layout: Layout, value: Tensor) -> list[int]:
        return [
            size if labels is None else size - int(self._gone(labels).sum())
            for size, labels in zip(value.shape, layout.dims, strict=True)
        ]

    def _dim(self, node: fx.Node, args: list[Any], position: int) -> int:
        first = node.meta["val"][0]
        given: Any = args[position] if len(args) > position else node.kwargs.get("dim", 0)
        return int(given) % int(first.ndim)

    def _bounds(self, node: fx.Node, args: list[Any]) -> list[Any]:
        """Start and end of a slice of channels, counted in channels that stay."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        layout = self._layouts[source]
        assert isinstance(layout, Layout)
        dim = int(args[1] if len(args) > 1 else 0) % len(layout.dims)
        labels = layout.dims[dim]
        if labels is None:
            return args
        start, stop, _ = slice(*(args[2:4] + [None] * 2)[:2]).indices(len(labels))
        stays = ~self._gone(labels)
        return [args[0], dim, int(stays[:start].sum()), int(stays[:stop].sum()), *args[4:]]
