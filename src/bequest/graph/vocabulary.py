"""Which inputs of a network are indices into a table, such as tokens, and how long the table is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx

from bequest.errors import UsageError
from bequest.graph.trace import Network, operator_of, place_of

_MOVES = frozenset(
    "_to_copy _unsafe_view alias clone contiguous detach expand flatten permute reshape select "
    "slice squeeze t transpose unflatten unsqueeze view".split()
)
"""Operators that move indices about, or change their type, and leave them what they are."""

_COUNTS = frozenset(("cumsum", "sum"))
_COMPARISONS = frozenset("eq ne lt le gt ge".split())


def vocabularies(network: Network) -> list[int | None]:
    """Rows of the smallest table that each input tensor is looked up in; None = in no table.

    An input counts as indices where it reaches a look-up (``embedding``, ``embedding_bag``,
    ``index``, ``one_hot``, ``index_select``, ``gather``) by moves alone. Positions that are counted
    from a mask don't make indices of it.

    Args:
        network: the traced model.

    Returns:
        One entry per tensor among the model's inputs, in order.

    Raises:
        UsageError: it can't be told what numbers an input holds: they are changed before they are
            looked up, or compared with numbers of the network's own; the message names the
            operator.
    """
    found = tables(network)
    for node, rows in zip(_inputs(network), found, strict=True):
        if rows is None and not node.meta["val"].is_floating_point():
            _require_mask(node, network)
    return found


def tables(network: Network) -> list[int | None]:
    """As :func:`vocabularies`, also where it can't be told what numbers an input holds."""
    return [min(_tables(node), default=None) for node in _inputs(network)]


def _inputs(network: Network) -> list[fx.Node]:
    """The placeholders of the network's input tensors, in order."""
    return [n for n in network.nodes if n.op == "placeholder" and n.name in network.inputs]


def _tables(node: fx.Node) -> list[int]:
    """Rows of all tables that the node's values are looked up in."""
    found = [table.meta["val"].shape[dim] for table, dim in _looked_up(node)]
    for user in node.users:
        if operator_of(user) in _MOVES and user.args[0] is node:
            found.extend(_tables(user))
    return found


def _looked_up(node: fx.Node) -> Iterator[tuple[fx.Node, int]]:
    """Each table in which the node is an index, and the dimension that it picks from."""
    for user in node.users:
        name = operator_of(user)
        args: tuple[Any, ...] = user.args
        if name in ("embedding", "embedding_bag") and args[1] is node:
            yield args[0], 0
        elif name in ("index_select", "gather") and args[2] is node:
            yield args[0], args[1]
        elif name == "index" and node in args[1]:
            yield args[0], args[1].index(node)
        elif name == "one_hot":
            yield user, -1


def _require_mask(start: fx.Node, network: Network) -> None:
    """Raises UsageError where an input that is no index itself still decides what is looked up."""
    pending: list[tuple[fx.Node, fx.Node | None]] = [(start, None)]
    seen = {start}
    changed: fx.Node | None = None
    while pending:
        node, change = pending.pop()
        if change is not None and any(_looked_up(node)):
            changed = change
        for user in node.users:
            name = operator_of(user)
            if name in _COUNTS:
                return  # of a mask: its ones are counted
            if name in _COMPARISONS and _own_numbers(user, network):
                changed = user
            if name == "embedding_bag" and user.args[2] is node:
                changed = user  # where its bags begin: ascending places, no mask
            value = user.meta.get("val")
            if user in seen or not isinstance(value, Tensor) or value.is_floating_point():
                continue
            seen.add(user)
            pending.append((user, change if name in _MOVES else change or user))
    if changed is not None:
        raise UsageError(
            f"regression can't make the input '{start.name}' up: it goes through "
            f"{place_of(changed)} before the network uses it, which leaves open what numbers it "
            "may hold. Give real inputs with data=, or a weight-space restorer such as 'lbyl'"
        )


def _own_numbers(comparison: fx.Node, network: Network) -> bool:
    """Whether an operand holds several numbers that no input of the network decides."""
    operands = comparison.all_input_nodes
    return any(one.meta["val"].numel() > 1 and not _depends(one, network) for one in operands)


def _depends(node: fx.Node, network: Network) -> bool:
    """Whether an input of the network reaches the node."""
    pending, seen = [node], {node}
    while pending:
        one = pending.pop()
        if one.op == "placeholder" and one.name in network.inputs:
            return True
        pending += [source for source in one.all_input_nodes if source not in seen]
        seen.update(one.all_input_nodes)
    return False
