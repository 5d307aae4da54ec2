"""Regions: a layer that reads channels, with all that lies between it and who writes them.

With few channels left other features than a subset of the old ones would serve better. No
regression of a single layer finds them, since a non-linearity stands between the layer that writes
them and the one that reads them; a region holds both.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from bequest.graph.geometry import LAYERS
from bequest.graph.trace import operator_of
from bequest.surgery.cut import Cut


@dataclass(frozen=True)
class Region:
    """Operators that nothing outside reads, but for the last.

    Attributes:
        nodes: in an order of execution; the last is the layer that reads the channels.
        outside: values from elsewhere that they read.
    """

    nodes: tuple[fx.Node, ...]
    outside: tuple[fx.Node, ...]

    @classmethod
    def behind(cls, cut: Cut, last: fx.Node) -> Region | None:
        """The region that ends with a layer; None where no other layer lies in it.

        It reaches back over operators that channels leave and whose values are read in it alone: up
        to the layers that write these channels.
        """
        network = cut.channels.reading.network
        inside = {last}
        for node in reversed(network.nodes[: network.nodes.index(last)]):
            if (
                node.op == "call_function"
                and node.users
                and inside.issuperset(node.users)
                and cut.narrows(node)
            ):
                inside.add(node)
        nodes = tuple(node for node in network.nodes if node in inside)
        layers = [node for node in nodes if operator_of(node) in LAYERS]
        if len(layers) < 2:
            return None
        read = dict.fromkeys(v for node in nodes for v in node.all_input_nodes if v not in inside)
        names = network.tensors
        return cls(nodes, tuple(value for value in read if value.name not in names))
