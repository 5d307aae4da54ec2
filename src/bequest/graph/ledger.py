"""The ledger of channel labels: which positions of which tensors can only leave together.

Every dimension of every parameter that could shrink gets fresh integer labels, one per index. The
rules of the operators then state equalities between labels (*ties*), labels that can't leave
(*frozen*, with a reason) and labels that must leave in equal numbers per block (*balanced*). The
connected components of the ties are the channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where a tensor's channels are: per dimension the labels of its indices.

    Attributes:
        dims: for each dimension its labels, or None where no index of it can leave (batch, space).
        origin: why the dimensions without labels are fixed, for messages.
    """

    dims: tuple[Labels | None, ...]
    origin: str

    def with_dims(self, dims: Iterable[Labels | None]) -> Layout:
        """The same origin with other dimensions."""
        return replace(self, dims=tuple(dims))

    def tracked(self) -> list[int]:
        """The dimensions that have labels."""
        return [dim for dim, labels in enumerate(self.dims) if labels is not None]


@dataclass(frozen=True)
class Balance:
    """Channels that fall into ``blocks`` blocks of equal size and must stay equal in number.

    It is ``firm`` where an operator asks for that, not the code alone.
    """

    labels: Labels
    blocks: int
    place: str
    firm: bool


@dataclass
class Ledger:
    """All statements that the rules make while a network is read."""

    count: int = 0
    ties: list[tuple[Labels, Labels]] = field(default_factory=list)
    frozen: list[tuple[Labels, str]] = field(default_factory=list)
    outputs: list[Labels] = field(default_factory=list)
    streams: list[Labels] = field(default_factory=list)
    batches: list[Labels] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    literals: list[tuple[Labels, str]] = field(default_factory=list)
    slots: dict[tuple[str, int], Labels] = field(default_factory=dict)
    segments: list[Labels] = field(default_factory=list)
    _held: list[tuple[Labels, str]] = field(default_factory=list)
    _loose: list[tuple[int, int]] = field(default_factory=list)

    def fresh(self, size: int) -> Labels:
        """``size`` new labels."""
        labels = np.arange(self.count, self.count + size)
        self.count += size
        return labels

    def slot(self, tensor: str, dim: int, size: int) -> Labels:
        """The labels of dimension ``dim`` of a parameter or buffer; the same at every call."""
        if (tensor, dim) not in self.slots:
            self.slots[tensor, dim] = self.fresh(size)
        return self.slots[tensor, dim]

    def loose(self, size: int) -> Labels:
        """``size`` new labels of a value that is repeated: any number of them will do."""
        self._loose.append((self.count, self.count + size))
        return self.fresh(size)

    def is_loose(self, labels: Labels) -> bool:
        """Whether the labels stand for repetitions, which nothing holds in number."""
        return bool(self._loose) and bool(self._among_loose(labels).all())

    def _among_loose(self, labels: Labels) -> NDArray[np.bool_]:
        first, end = np.array(self._loose).T
        ahead = labels < end[np.searchsorted(first, labels, side="right") - 1]
        among: NDArray[np.bool_] = ahead & (labels >= first[0])
        return among

    def join(self, met: Sequence[Labels]) -> Labels:
        """Ties labels of the same dimension of several tensors; the first that aren't loose."""
        firm = next((labels for labels in met if not self.is_loose(labels)), met[0])
        for labels in met:
            self.tie(firm, labels)
        return firm

    def hold(self, labels: Labels, reason: str) -> None:
        """None of ``labels`` can leave, as they meet as many fixed ones.

        Loose ones don't mind, unless elsewhere they meet others, which then can't leave either.
        """
        if self.is_loose(labels):
            self._held.append((labels.ravel(), reason))
        else:
            self.freeze(labels, reason)

    def tie(self, left: Labels, right: Labels) -> None:
        """Index by index, ``left`` and ``right`` leave together (arrays that broadcast)."""
        if left is not right:
            both = np.broadcast_arrays(left, right)
            self.ties.append((both[0], both[1]))

    def freeze(self, labels: Labels, reason: str) -> None:
        """None of ``labels`` can leave."""
        self.frozen.append((labels.ravel(), reason))

    def rest(self, size: int, reason: str) -> Labels:
        """``size`` new labels that can't leave."""
        labels = self.fresh(size)
        self.freeze(labels, reason)
        return labels

    def balance(self, labels: Labels, blocks: int, place: str, *, firm: bool = True) -> None:
        """``labels`` fall into equal, consecutive ``blocks`` that must keep equal numbers."""
        self.balances.append(Balance(labels, blocks, place, firm))

    def segment(self, labels: Labels) -> None:
        """Not all of ``labels`` can leave: they are a tensor of their own somewhere."""
        self.segments.append(labels.ravel())

    def literal(self, labels: Labels, place: str) -> None:
        """``labels`` pass a size that may be a constant in the code, which is to be tried out."""
        self.literals.append((labels.ravel(), place))

    def stuck(self, channel_of: Labels) -> list[tuple[Labels, str]]:
        """The labels that can't leave, with their reasons.

        Args:
            channel_of: label → channel.
        """
        if not self._held:
            return self.frozen
        firm = np.zeros(int(channel_of.max()) + 1, bool)
        firm[channel_of[~self._among_loose(np.arange(len(channel_of)))]] = True
        held = ((labels[firm[channel_of[labels]]], reason) for labels, reason in self._held)
        return [*self.frozen, *((labels, reason) for labels, reason in held if len(labels))]

    def components(self) -> NDArray[np.int32]:
        """For every label the number of its channel: connected components of the ties."""
        left = np.concatenate([pair[0].ravel() for pair in self.ties] or [self.fresh(0)])
        right = np.concatenate([pair[1].ravel() for pair in self.ties] or [self.fresh(0)])
        edges = coo_array((np.ones(len(left), np.int8), (left, right)), (self.count, self.count))
        channels: NDArray[np.int32] = connected_components(edges, directed=False)[1]
        return channels
