"""Which inputs of a network are indices into a table, such as tokens, and how long the table is."""

from __future__ import annotations

from torch import Tensor, fx

from bequest.graph.trace import Network, operator_of

_MOVES = frozenset(
    "_to_copy _unsafe_view alias clone contiguous detach expand flatten permute reshape select "
    "slice squeeze t transpose unflatten unsqueeze view".split()
)
"""Operators that move indices about, or change their type, and leave them what they are."""


def vocabularies(network: Network) -> list[int | None]:
    """Rows of the smallest table that each input tensor is looked up in; None = in no table.

    An input counts as indices where it reaches an ``embedding``, or an ``index_select`` from rows,
    by moves alone. What is computed from it before (positions from the sum of a mask) does not.

    Args:
        network: the traced model.

    Returns:
        One entry per tensor among the model's inputs, in order.
    """
    inputs = [node for node in network.nodes if node.op == "placeholder"]
    return [
        min(_tables(node), default=None)
        for node in inputs
        if node.name in network.inputs and isinstance(node.meta.get("val"), Tensor)
    ]


def _tables(node: fx.Node) -> list[int]:
    """Rows of all tables that the node's values are looked up in."""
    found: list[int] = []
    for user in node.users:
        name, args = operator_of(user), user.args
        if name in _MOVES and args[0] is node:
            found.extend(_tables(user))
        elif (name == "embedding" and args[1] is node) or (
            name == "index_select" and args[1:3] == (0, node)
        ):
            table = args[0]
            assert isinstance(table, fx.Node)
            found.append(int(table.meta["val"].shape[0]))
    return found
