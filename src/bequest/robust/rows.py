"""Linear functions of one value in two networks, many at once, over many boxes of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from bequest.robust.intervals import STEP, TINY, Interval, summing
from bequest.robust.twins import Twin, Weights


@dataclass(frozen=True)
class Rows:
    """A·z + D·Δ of a value z of the first network and its difference Δ = z′ − z in the second.

    Attributes:
        first: A, (R, B, *shape of the value); with 1 in the place of B for all boxes alike.
        change: D, likewise; None where there is no difference.
    """

    first: Tensor
    change: Tensor | None = None

    def __add__(self, other: Rows) -> Rows:
        if self.change is None or other.change is None:
            change = other.change if self.change is None else self.change
        else:
            change = self.change + other.change
        return Rows(self.first + other.first, change)

    @property
    def sizes(self) -> Tensor:
        """|A| + |D|."""
        return self.first.abs() if self.change is None else self.first.abs() + self.change.abs()


Handed = tuple[list[tuple[fx.Node, Rows]], Tensor]
"""Rows of what an operator reads, and a number for each of them, (R, B or 1)."""


def dot(rows: Tensor, values: Tensor) -> Tensor:
    """Σ rows·values: (R, B or 1, *shape) and (B or 1, *shape) → (R, B or 1)."""
    rows, values = rows.flatten(2), values.flatten(1)
    if rows.shape[1] == 1:
        return rows[:, 0] @ values.T
    if len(values) == 1:
        return rows @ values[0]
    found: Tensor = torch.linalg.vecdot(rows, values)
    return found


def exact(rows: Tensor, values: Tensor) -> Tensor:
    """At least Σ rows·values of known numbers."""
    return along(rows, values, summing(rows[0, 0].numel()) * values.abs())


def along(rows: Tensor, values: Tensor, slack: Tensor) -> Tensor:
    """At least Σ rows·values, of values that are known within a slack each."""
    return dot(rows, values) + margin(rows, slack)


def margin(rows: Tensor, slack: Tensor) -> Tensor:
    """At least Σ |rows|·slack: ‖rows‖·‖slack‖, which takes one look at the rows."""
    length: Tensor = torch.linalg.vector_norm(rows.flatten(2), dim=2)
    reach: Tensor = torch.linalg.vector_norm(slack.flatten(1), dim=1)
    return length * reach


def greatest(rows: Rows, held: Twin | Weights) -> Tensor:
    """At least the greatest values of rows, (R, B or 1), from all that is known of a value.

    A·z + D·Δ = (A − D)·z + D·z′ = A·z′ + (D − A)·Δ: entry by entry the least of the three.
    """
    A, D = rows.first, rows.change
    terms = A[0, 0].numel()
    if isinstance(held, Weights):
        total = exact(A, held.first[None])
        if D is None or held.change is None:
            return total
        return total + exact(D, held.change[None]) + STEP * dot(D.abs(), held.magnitude[None])
    if D is None or held.change is None:
        x = held.first
        slack = 2 * summing(terms) * (x.centre.abs() + x.radius) + TINY
        return dot(A, x.centre) + dot(A.abs(), x.radius + slack)
    ways = (
        _most(A, held.first) + _most(D, held.change),
        _most(A - D, held.first) + _most(D, held.second),
        _most(A, held.second) + _most(D - A, held.change),
    )
    each = torch.minimum(torch.minimum(ways[0], ways[1]), ways[2])
    sizes = held.first.magnitude + held.second.magnitude + held.change.magnitude
    return each.flatten(2).sum(2) + 4 * summing(terms) * dot(rows.sizes, sizes)


def _most(rows: Tensor, x: Interval) -> Tensor:
    return torch.maximum(rows * x.lower, rows * x.upper)


def magnitudes(twin: Any) -> Tensor:
    """|z| + |z′| at most, entry by entry."""
    return twin.first.magnitude + twin.second.magnitude  # type: ignore[no-any-return]
