"""Blocks that must keep equal numbers of channels: the division of a group that keeps them so.

Each balance lays the places of channels out in blocks. Channels that have as many places in each
block of each balance are alike: they form a *part*. If all parts lose the same share, all blocks
stay equal, whatever blocks share a part. So the parts are cut into pieces of their greatest common
size, and every piece keeps the same number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bequest.graph.ledger import Balance

Index = NDArray[np.int64]


def divided(
    balances: Sequence[Balance], channel_of: Index, channels: Index
) -> tuple[Index | None, str]:
    """The piece of every channel of a group; None where no balance asks for any.

    Args:
        balances: all that meet the group.
        channel_of: label → channel.
        channels: those of the group.

    Returns:
        The pieces' numbers, (n,), and the reason why no channel can leave, '' where some can: a
        balance reaches beyond the group, or a piece is a single channel.
    """
    found: list[tuple[Balance, Index]] = []
    for balance in balances:
        counts = _counts(balance, channel_of, channels)
        if counts.sum() < balance.labels.size:
            return None, f"blocks of equal number reach beyond the group ({balance.place})"
        if (counts != counts[0]).any():  # else they are equal whoever leaves
            found.append((balance, counts))
    if not found:
        return None, ""
    part_of = np.zeros(len(channels), np.int64)
    held = np.zeros(len(channels), bool)
    for _, counts in found:
        alike = np.unique(counts, axis=1, return_inverse=True)[1].reshape(-1)
        finer = part_of * (int(alike.max()) + 1) + alike
        part_of = np.unique(finer, return_inverse=True)[1].reshape(-1)
        held |= counts.any(0)
    sizes = np.bincount(part_of)
    common = int(np.gcd.reduce(sizes[np.unique(part_of[held])]))
    if common == 1:
        return None, _too_fine(found)
    return _pieces(part_of, common), ""


def _pieces(part_of: Index, common: int) -> Index:
    """The parts in pieces of so many consecutive channels, numbered as they come."""
    within = np.zeros(len(part_of), np.int64)
    for part in range(int(part_of.max()) + 1):
        members = np.flatnonzero(part_of == part)
        within[members] = np.arange(len(members)) // common
    _, first, piece = np.unique(
        part_of * (len(part_of) + 1) + within, return_index=True, return_inverse=True
    )
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    pieces: Index = rank[piece.reshape(-1)]
    return pieces


def _counts(balance: Balance, channel_of: Index, channels: Index) -> Index:
    """How many places each channel has in each block: (blocks, n)."""
    position = np.full(int(channel_of.max()) + 1, -1)
    position[channels] = np.arange(len(channels))
    at = position[channel_of[balance.labels]].reshape(balance.blocks, -1)
    counts = np.zeros((balance.blocks, len(channels) + 1), np.int64)
    np.add.at(counts, (np.arange(balance.blocks)[:, None], at), 1)  # strangers stand last
    return counts[:, :-1]


def _too_fine(found: Sequence[tuple[Balance, Index]]) -> str:
    """Why blocks can't stay equal in number although channels leave."""
    for balance, counts in found:
        if ((counts > 0).sum(0) > 1).any():
            return (
                "its channels stand for places in several of the blocks that must stay equal in "
                f"number ({balance.place})"
            )
    places = ", ".join(dict.fromkeys(balance.place for balance, _ in found[:2]))
    return f"no division into equal blocks goes with all that are asked for ({places})"
