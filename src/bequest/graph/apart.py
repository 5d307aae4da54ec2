"""Groups of recurrent layers, cell by cell.

All layers and directions keep equally many units, and so they are one group. But a unit can only be
written in terms of units that are read where it is read: those of its own layer and direction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bequest.graph.groups import Channels, Group
from bequest.graph.recurrence import is_recurrent


def apart(channels: Channels, group: Group) -> tuple[Group, ...]:
    """A group of recurrent layers by layers and directions; any other group as it is.

    Args:
        channels: the network's groups.
        group: one of them.
    """
    recurrent = all(is_recurrent(write.node) for write in group.producers)
    if group.blocks is None or not recurrent:
        return (group,)
    found = []
    for block in np.unique(group.blocks):
        own = np.flatnonzero(group.blocks == block)
        one = replace(
            group, channels=group.channels[own], fixed=group.fixed[own], segments=(), blocks=None
        )
        met = [
            (write, np.searchsorted(own, np.intersect1d(part, own)))
            for write, part in zip(group.producers, group.parts, strict=True)
            if np.isin(part, own).any()
        ]
        reads = (r for r in group.consumers if (channels.positions(one, r.labels) >= 0).any())
        producers, parts = zip(*met, strict=True)
        found.append(replace(one, producers=producers, parts=parts, consumers=tuple(reads)))
    return tuple(found)
