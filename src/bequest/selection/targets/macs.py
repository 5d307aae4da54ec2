"""A share of the dense network's multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from bequest.config import register
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
        return count_macs(lambda: _run_operators(cut, named_tensors(model)))


def _run_operators(cut: Cut, tensors: Mapping[str, Tensor]) -> None:
    """The operators of the graph at their new widths, on tensors without data."""
    network, values = cut.channels.reading.network, dict[fx.Node, Any]()
    for node in network.nodes:
        if node.op == "placeholder":
            held = tensors.get(network.tensors.get(node.name, ""), node.meta.get("val"))
            values[node] = held.to("meta") if isinstance(held, Tensor) else held
        elif node.op == "call_function":
            args = list(fx.map_arg(node.args, values.__getitem__))
            kwargs = dict(fx.map_arg(node.kwargs, values.__getitem__))
            if kwargs.get("device") is not None:
                kwargs["device"] = "meta"
            values[node] = node.target(*cut.arguments(node, args), **kwargs)  # type: ignore[operator]
