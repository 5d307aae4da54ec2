"""Norms written out: statistics over channels that do no more than scale or shift these channels.

``x * rsqrt(mean(x * x))`` computes a number from all channels of ``x`` and gives it back to each of
them, as a layer norm does. So channels can leave, and the statistic is that of those that stay. A
sum that a layer reads, or that scales other channels, is a result of its own: it needs them all.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
from torch import fx

from bequest.graph.ledger import Labels, Layout
from bequest.graph.reading import Reading
from bequest.graph.rules.elementwise import is_copy
from bequest.graph.trace import operator_of, place_of

STATISTICS = frozenset("mean sum var std var_mean std_mean norm linalg_vector_norm".split())
"""Reductions of which norms are made."""

_MOVES = frozenset(
    "view reshape flatten unsqueeze squeeze expand expand_as broadcast_to permute transpose t "
    "getitem".split()
)
"""Operators that move a statistic to the place where it meets the channels."""


def settle(reading: Reading) -> None:
    """Decides on all reductions over channels: each is a norm's, or its channels can't leave."""
    if not reading.reductions:
        return
    channel_of = reading.ledger.components().astype(np.int64)
    for node, labels in reading.reductions.items():
        use = _Use(reading, channel_of, frozenset(channel_of[labels].tolist()))
        other = use.beyond(node) if operator_of(node) in STATISTICS else node
        if other is None:
            reading.normalised[node] = labels
        else:
            more = "" if other is node else f", which scales more than these: {place_of(other)}"
            reason = f"is reduced over its channels ({place_of(node)}){more}"
            reading.ledger.freeze(labels, reason)


class _Use:
    """What becomes of a statistic of some channels.

    Args:
        reading: of the network, all of whose nodes have layouts.
        channel_of: label → channel.
        channels: those that the statistic is taken over.
    """

    def __init__(self, reading: Reading, channel_of: Labels, channels: AbstractSet[int]) -> None:
        self._reading = reading
        self._channel_of = channel_of
        self._channels = channels

    def beyond(self, statistic: fx.Node) -> fx.Node | None:
        """The first operator that makes more of it than a factor or a shift of these channels."""
        pending, seen = [statistic], {statistic}
        while pending:
            node = pending.pop()
            for user in node.users:
                made = user.op == "output" or user.meta.get("val") is not None
                if user in seen or not made or self._gives_back(node, user):
                    continue
                if not self._goes_on(node, user):
                    return user
                seen.add(user)
                pending.append(user)
        return None

    def _gives_back(self, statistic: fx.Node, user: fx.Node) -> bool:
        """Whether the statistic meets its channels, element by element, the same for all."""
        result, layout = self._reading.layouts.get(user), self._reading.layouts[statistic]
        if self._reading.roles.get(user) != "elementwise" or not isinstance(result, Layout):
            return False
        assert isinstance(layout, Layout)
        given = [None] * (len(result.dims) - len(layout.dims)) + list(layout.dims)
        pairs = zip(result.dims, given, strict=True)
        met = [self._held(labels) for labels, own in pairs if not self._held(own)]
        return frozenset[int]().union(*met) == self._channels

    def _goes_on(self, statistic: fx.Node, user: fx.Node) -> bool:
        """Whether it is still a statistic, or what is made of it and of what has no channels."""
        role, name = self._reading.roles.get(user), operator_of(user)
        passes = role in ("activation", "elementwise") or is_copy(user)
        if not passes and name not in _MOVES | STATISTICS:
            return False
        return self._among(user) <= self._among(statistic)

    def _among(self, node: fx.Node) -> AbstractSet[int]:
        """The statistic's channels that a node has."""
        layout = self._reading.layouts[node]
        layouts = layout if isinstance(layout, tuple) else (layout,)
        held = (self._held(labels) for one in layouts for labels in one.dims)
        return frozenset[int]().union(*held) & self._channels

    def _held(self, labels: Labels | None) -> AbstractSet[int]:
        """The channels of a dimension; repetitions of one number have none."""
        if labels is None or self._reading.ledger.is_loose(labels):
            return frozenset()
        return frozenset(self._channel_of[labels].tolist())
