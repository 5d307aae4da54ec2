"""One value in two networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.robust.intervals import STEP, Interval


@dataclass(frozen=True)
class Twin:
    """One value in two networks.

    Attributes:
        first: in the one network.
        second: in the other.
        change: second minus first, (*shape) or (candidates, *shape); None = they are the same.
    """

    first: Interval
    second: Interval
    change: Interval | None

    @property
    def difference(self) -> Interval:
        """The change, as zeros where there is none."""
        if self.change is not None:
            return self.change
        zeros = torch.zeros_like(self.first.lower)
        return Interval(zeros, zeros)


@dataclass(frozen=True)
class Weights:
    """A parameter or buffer in two networks, in float64."""

    first: Tensor
    second: Tensor

    @property
    def change(self) -> Tensor | None:
        """Second minus first, to rounding; None = they are the same."""
        return None if self.first is self.second else self.second - self.first

    @property
    def magnitude(self) -> Tensor:
        """|first| + |second|, of which the rounding of the change is a part."""
        return self.first.abs() + self.second.abs()

    @property
    def difference(self) -> Interval:
        """The change with its rounding, as zeros where there is none."""
        if self.change is None:
            zeros = torch.zeros_like(self.first)
            return Interval(zeros, zeros)
        return Interval.around(self.change, STEP * self.magnitude)
