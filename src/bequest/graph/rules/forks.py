"""Reads a network whose views split channels: which part keeps them is found by trying.

``view(B, N, 3, H, D)`` lays the rows of a fused projection out over three dimensions. Which of them
can shrink shows only further down: 3 is taken apart by index, D is summed over by a product that it
also scales, and whole heads can leave. So the network is read once for each possible part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import fx

from bequest.graph.ledger import Labels
from bequest.graph.reading import Fork, Reading
from bequest.graph.rules.base import read_once
from bequest.graph.statistics import settle
from bequest.graph.trace import Network

_Rank = tuple[bool, bool, int]


def read(network: Network) -> Reading:
    """Applies the rules to a traced network in order.

    Of the parts of a split dimension one along which channels can leave is taken: batches of
    products of tensors (heads) first, then the largest.
    """
    reading = _read(network, {})
    if not reading.forks:
        return reading
    best: dict[fx.Node, tuple[_Rank, int]] = {}
    for part in range(1, max(fork.parts for fork in reading.forks.values()) + 1):
        trial = _read(network, dict.fromkeys(network.nodes, part))
        for node, rank in _ranks(trial).items():
            found = rank, trial.forks[node].part
            best[node] = max(best.get(node, found), found)
    return _read(network, {node: part for node, (_, part) in best.items()})


def _read(network: Network, parts: Mapping[fx.Node, int]) -> Reading:
    reading = read_once(network, parts)
    settle(reading)
    return reading


def _ranks(reading: Reading) -> dict[fx.Node, _Rank]:
    """View → how good its choice is: heads that can leave, anything that can leave, how many."""
    channel_of = reading.ledger.components().astype(np.int64)
    frozen = _channels(channel_of, (labels for labels, _ in reading.ledger.frozen))
    heads = _channels(channel_of, reading.ledger.batches)

    def rank(fork: Fork) -> _Rank:
        channels = np.unique(channel_of[fork.labels])
        free = channels[~frozen[channels]]
        return bool(heads[free].any()) and len(free) > 1, len(free) > 1, len(free)

    return {node: rank(fork) for node, fork in reading.forks.items()}


def _channels(channel_of: Labels, marked: Iterable[Labels]) -> NDArray[np.bool_]:
    """Mask over channels: those that any of the marked labels belongs to."""
    mask = np.zeros(int(channel_of.max(initial=0)) + 1, bool)
    for labels in marked:
        mask[channel_of[labels.ravel()]] = True
    return mask
