"""Sums inside one branch: parts of what a single layer wrote, and what was made of other parts.

Res2Net adds a part of a layer's channels to what a convolution made of the part before. No channel
is passed on beside the layers that read it, as in a residual stream; so which layers lie between is
remembered, and once all channels are known a sum is a stream if one of them reads its channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from bequest.graph.ledger import Labels
from bequest.graph.reading import Reading


def layers_between(reading: Reading, branches: Sequence[fx.Node]) -> frozenset[fx.Node] | None:
    """The layers by which all branches but one follow from the layer that wrote that one.

    None where no branch is a single layer's, or another follows from something else, too.
    """
    for one in branches:
        if len(reading.sources[one]) == 1:
            (first,) = reading.sources[one]
            others = [_between(reading, first, other) for other in branches if other is not one]
            found = [layers for layers in others if layers is not None]
            if len(found) == len(others):
                return frozenset[fx.Node]().union(*found)
    return None


def streams(reading: Reading, channel_of: Labels) -> list[Labels]:
    """Labels of the sums inside a branch one of whose own layers reads them.

    Args:
        reading: of the network.
        channel_of: label → channel.
    """
    found = []
    for labels, layers in reading.inside:
        read = [np.unique(channel_of[one.labels]) for one in reading.reads if one.node in layers]
        if np.isin(channel_of[labels], np.concatenate([*read, np.zeros(0, np.int64)])).any():
            found.append(labels)
    return found


def _between(reading: Reading, first: fx.Node, last: fx.Node) -> frozenset[fx.Node] | None:
    """The layers between two nodes; None where the second doesn't follow from the first alone."""
    pending, seen = [last], {first, last}
    while pending:
        node = pending.pop()
        varying = [one for one in node.all_input_nodes if one not in reading.steady]
        if not varying and node is not first:
            return None  # an input of the network
        pending += [one for one in varying if one not in seen]
        seen.update(varying)
    return frozenset(
        node for node in seen if reading.roles.get(node) == "layer" and node is not first
    )
