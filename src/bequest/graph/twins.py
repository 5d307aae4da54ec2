"""Compares two traces of one network: at other widths, or at another batch size.

Whether a view needs a copy depends on sizes of one, so copies are no part of a comparison.
"""

from __future__ import annotations

from torch import fx

from bequest.graph.trace import Network, operator_of

COPIES = frozenset({"clone", "alias", "detach", "contiguous"})
VIEWS = frozenset({"view", "_unsafe_view", "reshape"})


def without_copies(network: Network) -> tuple[list[fx.Node], dict[fx.Node, fx.Node]]:
    """The nodes that are no copies, and for every node the one whose value it has."""
    sources: dict[fx.Node, fx.Node] = {}
    for node in network.nodes:
        copied = node.args[0] if operator_of(node) in COPIES else None
        sources[node] = sources[copied] if isinstance(copied, fx.Node) else node
    return [node for node in network.nodes if sources[node] is node], sources


def kind(node: fx.Node) -> str:
    """The operator's full name, the same for all kinds of views; what a placeholder stands for."""
    if node.op != "call_function":
        return node.op
    return "view" if operator_of(node) in VIEWS else str(node.target)
