"""One value in two networks, and what a rule is that maps such values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

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


Result = Interval | tuple[Interval, ...]


class Rule(NamedTuple):
    """An operator's two functions; operands that are no tensors are passed as they are."""

    value: Callable[..., Result]
    """(node, *operands) with Interval or Tensor operands."""
    change: Callable[..., Result]
    """(node, *operands) with Twin or Weights operands."""


def per_candidate(operator: Callable[..., Any], x: Tensor, like: Tensor) -> Any:
    """The operator on every candidate's tensor."""
    return torch.vmap(operator)(x) if x.ndim > like.ndim else operator(x)


def as_result(node: fx.Node, first: Interval) -> Result:
    """Alone, or as the first of several results."""
    return (first,) if isinstance(node.meta["val"], tuple | list) else first
