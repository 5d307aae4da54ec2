"""A share of the dense network's multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bequest.config import register
from bequest.graph.interpreter import Interpreter
from bequest.graph.trace import named_tensors
from bequest.measure.cost import count_macs
from bequest.selection.allocation import Part
from bequest.selection.targets.budget import Budget
from bequest.surgery.cut import Cut


@register("target", "macs")
@dataclass(frozen=True)
class Macs(Budget):
    """At most that share of the multiply-accumulates stays."""

    def part(self, part: Part) -> float:
        """The share of all multiply-accumulates."""
        return part.macs

    def cost(self, cut: Cut, model: nn.Module) -> int:
        """Multiply-accumulates of the graph: the model's code may not bear other widths."""
        return count_macs(_WithoutData(cut, named_tensors(model)).interpret)


class _WithoutData(Interpreter):
    """The graph at its new widths, on tensors without data."""

    def __init__(self, cut: Cut, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(cut.channels.reading.network, torch.device("meta"))
        self._cut, self._tensors = cut, tensors

    def placeholder(self, node: fx.Node, feeds: Iterator[Any]) -> Any:
        held = self._tensors.get(self.network.tensors.get(node.name, ""), node.meta.get("val"))
        return held.to("meta") if isinstance(held, Tensor) else held

    def arguments(
        self, node: fx.Node, value: Callable[[fx.Node], Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = super().arguments(node, value)
        return self._cut.arguments(node, args), kwargs
