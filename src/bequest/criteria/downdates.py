"""The inverse of a covariance while inputs leave it, its downdates taken many at a time.

When the inputs J leave, P becomes  P − P[:,J]·P[J,J]⁻¹·P[J,:].  One by one, these products of rank
|J| cost what it takes to read and write P. So P is held as  M − Rᵀ·K,  and multiplied out when R
and K have :data:`BLOCK` rows; until then only what is asked of P is computed: the rows of who
leaves, and the block of each channel's own inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, linalg

BLOCK = 192
"""Rows of R and K that are multiplied out together: with fewer of them memory is what takes time,
with more of them what a next row costs."""


class Places:
    """Which of d inputs belong to each of n channels.

    Attributes:
        owner: int64 (d,), the channel of each input; −1 = none of them.
        columns: int64 (n, q), each channel's inputs.
        present: bool (n, q), which of these entries count: channels may have fewer.
    """

    def __init__(self, owner: Tensor, size: int) -> None:
        self.owner = owner
        mine = owner >= 0
        counts = torch.bincount(owner[mine], minlength=size)
        order = torch.argsort(owner.masked_fill(~mine, size), stable=True)[: int(mine.sum())]
        slots = torch.arange(int(counts.max().clamp(min=1)), device=owner.device)
        self.present = slots < counts[:, None]
        self.columns = torch.zeros_like(self.present, dtype=torch.int64)
        self.columns[self.present] = order

    def of(self, channel: int) -> Tensor:
        """The inputs of one channel, int64 (≤ q,)."""
        return self.columns[channel][self.present[channel]]

    def staying(self, stay: Tensor) -> tuple[Places, Tensor]:
        """Those of the channels that stay, (n,), counted anew; and which inputs stay, (d,)."""
        foreign = self.owner < 0
        inputs: Tensor = foreign | stay[self.owner.clamp(min=0)]
        numbers = stay.cumsum(0) - 1
        owner = torch.where(foreign, -1, numbers[self.owner.clamp(min=0)])[inputs]
        return Places(owner, int(stay.sum())), inputs

    def spread(self, rows: Tensor) -> Tensor:
        """Rows (r, d) by channel, (n, r, q); zero where a channel has fewer inputs."""
        return (rows[:, self.columns] * self.present).transpose(0, 1)

    def blocks(self, matrix: Tensor) -> Tensor:
        """The square block of each channel's inputs, (n, q, q); zero where it has fewer."""
        blocks = matrix[self.columns[:, :, None], self.columns[:, None, :]]
        return blocks * (self.present[:, :, None] & self.present[:, None, :])


class Rows:
    """A matrix of r rows that grows row by row, and of which columns are dropped."""

    def __init__(self, like: Tensor, width: int) -> None:
        self._buffer, self._count = like.new_empty(2 * BLOCK, width), 0

    def __len__(self) -> int:
        return self._count

    @property
    def held(self) -> Tensor:
        """The matrix, (r, width)."""
        return self._buffer[: self._count]

    def append(self, rows: Tensor) -> None:
        """Adds rows at the end."""
        end = self._count + len(rows)
        if end > len(self._buffer):
            self._buffer = torch.cat([self.held, rows.new_empty(end, rows.shape[1])])
        self._buffer[self._count : end] = rows
        self._count = end

    def clear(self) -> None:
        """Drops all rows."""
        self._count = 0

    def keep(self, columns: Tensor) -> None:
        """Drops all other columns."""
        self._buffer = self._buffer[:, columns]


class Inverse:
    """P, the inverse covariance of the inputs that are left.

    Attributes:
        matrix: M, (d, d).
        blocks: P of each channel's own inputs, (n, q, q); identity where it has fewer or has left.
        carried: K, (r, d): P[J,J]⁻¹·P[J,:] of all who left since it was last multiplied out.
    """

    def __init__(self, matrix: Tensor, places: Places) -> None:
        """Takes over the matrix (d, d), which is written into."""
        self.matrix, self._places = matrix, places
        self._left = matrix.new_ones(len(matrix))
        self._rows, self.carried = Rows(matrix, len(matrix)), Rows(matrix, len(matrix))
        missing = (~places.present).to(matrix).diag_embed()
        self.blocks = places.blocks(matrix) + missing

    def remove(self, channel: int) -> Tensor:
        """Takes a channel's inputs J out; returns P[J,J]⁻¹·P[J,:], (|J|, d).

        It is zero for inputs that have left before.
        """
        gone, each = self._places.of(channel), self.blocks.shape[1]
        pending = self._rows.held[:, gone].mT @ self.carried.held
        rows = (self.matrix[gone] - pending) * self._left
        carried: Tensor = linalg.solve(rows[:, gone], rows)
        self._left[gone] = 0.0
        self.blocks -= self._places.spread(rows).mT @ self._places.spread(carried)
        self.blocks[channel] = torch.eye(each, dtype=rows.dtype, device=rows.device)
        self._rows.append(rows)
        self.carried.append(carried)
        return carried

    @property
    def is_full(self) -> bool:
        """Whether it is time to :meth:`multiply`."""
        return len(self.carried) >= BLOCK

    def multiply(self) -> None:
        """M ← M − Rᵀ·K."""
        self.matrix.addmm_(self._rows.held.mT, self.carried.held, alpha=-1)
        self._rows.clear()
        self.carried.clear()

    def keep(self, places: Places, channels: Tensor, inputs: Tensor) -> None:
        """Forgets channels that have left, and their inputs (:meth:`Places.staying`)."""
        self._places = places
        stay = inputs.nonzero()[:, 0]
        self.matrix, self._left = self.matrix[stay[:, None], stay], self._left[stay]
        self._rows.keep(inputs)
        self.carried.keep(inputs)
        width = places.columns.shape[1]
        self.blocks = self.blocks[channels][:, :width, :width]
