"""Reads a network whose views split channels: which part keeps them is found by trying.

``view(B, N, 3, H, D)`` lays the rows of a fused projection out over three dimensions. Which of them
can shrink shows only further down: 3 is taken apart by index, D is summed over by a product that it
also scales, and whole heads can leave. So the network is read once for each possible part. Views
may lay out one after the other, (3, H·D) and then (H, D), or side by side: parts that an operator
holds where they are read are no choice any more when the others' parts are tried again.
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
    left: dict[fx.Node, set[int]] = {}
    for part in range(1, max(fork.parts for fork in reading.forks.values()) + 1):
        _try(network, dict.fromkeys(network.nodes, part), best, left)
    if not all(heads for (heads, _, _), _ in best.values()):
        for part in sorted(set().union(*left.values())):
            chosen = {node: part if part in parts else max(parts) for node, parts in left.items()}
            _try(network, dict.fromkeys(network.nodes, part) | chosen, best, left)
    return _read(network, {node: part for node, (_, part) in best.items()})


def _try(
    network: Network,
    parts: Mapping[fx.Node, int],
    best: dict[fx.Node, tuple[_Rank, int]],
    left: dict[fx.Node, set[int]],
) -> None:
    """Reads the network with these parts, and notes what that shows of each view.

    Args:
        network: what is read.
        parts: view → part.
        best: view → the best rank so far, and its part; updated.
        left: view → all parts but those that an operator was seen to hold, if any; updated.
    """
    trial = _read(network, parts)
    held = _held(trial)
    for node, rank in _ranks(trial).items():
        fork = trial.forks[node]
        best[node] = max(best.get(node, (rank, fork.part)), (rank, fork.part))
        others = left.setdefault(node, set(range(1, fork.parts + 1))) - {fork.part}
        if others and held[fork.kept].all():
            left[node] = others


def _held(reading: Reading) -> NDArray[np.bool_]:
    """Mask over labels: those that an operator holds itself, not by what they are tied to."""
    mask = np.zeros(reading.ledger.count, bool)
    for labels, _ in reading.ledger.frozen:
        mask[labels] = True
    return mask


def _read(network: Network, parts: Mapping[fx.Node, int]) -> Reading:
    reading = read_once(network, parts)
    settle(reading)
    return reading


def _ranks(reading: Reading) -> dict[fx.Node, _Rank]:
    """View → how good its choice is: heads that can leave, anything that can leave, how many."""
    channel_of = reading.ledger.components().astype(np.int64)
    frozen = _channels(channel_of, (labels for labels, _ in reading.ledger.stuck(channel_of)))
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
