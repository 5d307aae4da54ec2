"""In which order operators run, and after which of them a value is not needed any more."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from torch import fx

Step = tuple[fx.Node, ...]
"""Operators that run together: none of them reads another."""


def schedule(nodes: Sequence[fx.Node], together: Iterable[Step]) -> list[Step]:
    """The nodes in an order of execution, each set of ``together`` as one step where it can be.

    It can't where one of the set depends on another, as in a layer that is applied to its own
    outputs; nor where two sets would have to wait for each other. Then its nodes are steps of their
    own. Without sets the order is that of ``nodes``.

    Args:
        nodes: all nodes of a graph in an order of execution.
        together: sets of them that have no node in common.
    """
    number = {node: i for i, node in enumerate(nodes)}
    leader = {node: node for node in nodes}
    order = list(nodes)
    for one in together:
        merged = leader | dict.fromkeys(one, one[0])
        found = _sorted(nodes, merged, number)
        if found is not None:
            leader, order = merged, found
    members: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in nodes:
        members[leader[node]].append(node)
    return [tuple(members[node]) for node in order]


def last_uses(
    nodes: Sequence[fx.Node], also: Mapping[fx.Node, Iterable[fx.Node]] = MappingProxyType({})
) -> dict[fx.Node, list[fx.Node]]:
    """Node → the values that nobody reads after it.

    Args:
        nodes: in an order of execution.
        also: node → values that are needed there beside those that it reads.
    """
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for value in (node, *node.all_input_nodes, *also.get(node, ())):
            last[value] = node
    uses: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for value, node in last.items():
        uses[node].append(value)
    return uses


def _sorted(
    nodes: Sequence[fx.Node], leader: dict[fx.Node, fx.Node], number: dict[fx.Node, int]
) -> list[fx.Node] | None:
    """The leaders in an order of execution, early nodes first; None where there is a circle."""
    waits: dict[fx.Node, int] = {leader[node]: 0 for node in nodes}
    readers: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for node in nodes:
        for value in node.all_input_nodes:
            readers[leader[value]].append(leader[node])
            waits[leader[node]] += 1
    ready = [number[node] for node, count in waits.items() if not count]
    heapq.heapify(ready)
    order: list[fx.Node] = []
    while ready:
        node = nodes[heapq.heappop(ready)]
        order.append(node)
        for reader in readers[node]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, number[reader])
    return order if len(order) == len(waits) else None
