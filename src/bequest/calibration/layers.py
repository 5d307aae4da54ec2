"""A layer as a walk meets it: a weight, and the operators that apply it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from bequest.graph.geometry import LAYERS, Geometry, arguments, geometry_of
from bequest.graph.products import parameter_of
from bequest.graph.trace import Network, operator_of


@dataclass(frozen=True)
class Call:
    """One operator that applies a layer's weight, before the pruned stream has passed it.

    Attributes:
        node: the operator: a convolution (plain, grouped, depthwise, transposed) or linear layer.
        geometry: of that operator after pruning.
        bias: qualified name of the bias that it adds; None = none, as far as it was traced.
        inputs: the pruned stream's inputs, by chunk; read or computed anew whenever asked for.
        dense: the dense stream's outputs without the channels that leave, likewise.
    """

    node: fx.Node
    geometry: Geometry
    bias: str | None
    inputs: Sequence[Tensor]
    dense: Sequence[Tensor]


@dataclass(frozen=True)
class Layer:
    """A layer as the walk meets it: a weight and the operators that apply it.

    Attributes:
        name: qualified name of the weight's owner: that of the weight without ``.weight``.
        weight: qualified name of the weight.
        calls: of its operators those that come together; more than one where a weight is shared.
        uses: how many operators apply the weight in all.
    """

    name: str
    weight: str
    calls: tuple[Call, ...]
    uses: int

    @property
    def whole(self) -> bool:
        """All calls are here: what is made of the weight now is what every one of them applies."""
        return len(self.calls) == self.uses


def layer_weights(network: Network) -> dict[fx.Node, str]:
    """Layer's operator → its weight, of those weights that may change.

    A weight that anything but layers of one kind reads can't follow what a layer would need: a
    table of tokens too, say, or a decoder's that is the encoder's transposed.
    """
    found: dict[fx.Node, str] = {}
    kinds: dict[str, set[object]] = defaultdict(set)
    for node in network.nodes:
        for value in node.all_input_nodes:
            name = network.tensors.get(parameter_of(value)[0].name)
            if name is None or parameter_of(node)[1]:  # what reads a transposed matrix counts
                continue
            if _applies(node, value, network.tensors):
                geometry, found[node] = geometry_of(node), name
                kinds[name].add((geometry.linear, geometry.transposed, geometry.groups))
            else:
                kinds[name].add(node)
    return {node: name for node, name in found.items() if len(kinds[name]) == 1}


def as_applied(node: fx.Node, weight: Tensor) -> Tensor:
    """A layer's weight as its operator takes it: that of GPT-2's layers is transposed before."""
    return weight.t() if parameter_of(arguments(node)["weight"])[1] else weight


def bias_of(node: fx.Node, network: Network) -> str | None:
    """Qualified name of the bias that a layer's operator adds; None = none."""
    bias = arguments(node)["bias"]
    return None if bias is None else network.tensors[bias.name]


def _applies(node: fx.Node, weight: fx.Node, names: Mapping[str, str]) -> bool:
    """Whether an operator is a layer, this its weight, and its bias no computed one."""
    if node.op != "call_function" or operator_of(node) not in LAYERS or node.args[1] is not weight:
        return False
    bias = arguments(node)["bias"]
    return weight.meta["val"].ndim > 1 and (bias is None or bias.name in names)
