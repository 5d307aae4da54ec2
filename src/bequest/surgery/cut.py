"""The network without some of its channels: what follows from who leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from bequest.graph.groups import Channels, Group
from bequest.graph.ledger import Labels, Layout
from bequest.graph.rules.widths import widths_of

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

    def layout(self, node: fx.Node) -> Layout | tuple[Layout, ...]:
        """Where the channels of the dense node's value are; one layout per value."""
        return self._layouts[node]

    def shape(self, node: fx.Node) -> list[int]:
        """The shape of the node's (first) value without the channels that leave."""
        layout, value = self._layouts[node], node.meta["val"]
        if isinstance(layout, tuple):
            layout, value = layout[0], value[0]
        return self._sizes(layout, value)

    def shapes(self, node: fx.Node) -> list[list[int]]:
        """The same of each value of a node that has several."""
        layouts = self._layouts[node]
        assert isinstance(layouts, tuple)
        return [self._sizes(*each) for each in zip(layouts, node.meta["val"], strict=True)]

    def arguments(self, node: fx.Node, args: list[Any]) -> list[Any]:
        """The operator's arguments, nodes already replaced by values, at the new widths."""
        for position, value in self.literals(node).items():
            args[position:] = [value, *args[position + 1 :]]
        return args

    def literals(self, node: fx.Node) -> dict[int, Any]:
        """Arguments that are sizes or positions along channels, by position, at the new widths."""
        return widths_of(node, self)

    def _sizes(self, layout: Layout, value: Tensor) -> list[int]:
        return [
            size if labels is None else size - int(self.gone(labels).sum())
            for size, labels in zip(value.shape, layout.dims, strict=True)
        ]
