"""Interval arithmetic: sets of numbers that are known by their ends.

Everything is float64. Ends are widened outward where sums are taken (:data:`ROUNDING`), so that an
interval holds the exact value in spite of the rounding of its own computation. An end that can't be
computed (NaN, as from 0·∞) becomes infinite: nothing is claimed that isn't known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 1e-12
"""Outward margin of a sum, relative to the sum of the magnitudes of its terms. A float64 sum of n
terms errs by less than n·1.2e-16 of that: the margin covers sums of 8,000 terms."""

Linear = Callable[[Tensor, Tensor], Tensor]
"""(x, weight) → a tensor that is linear in x and in the weight, each entry a sum of products."""


@dataclass(frozen=True)
class Interval:
    """All numbers from ``lower`` to ``upper``, entry by entry; both tensors have one shape."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def known(cls, lower: Tensor, upper: Tensor) -> Interval:
        """The interval with these ends; NaN becomes infinite."""
        return cls(
            torch.nan_to_num(lower, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf),
            torch.nan_to_num(upper, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf),
        )

    @classmethod
    def unbounded(cls, shape: torch.Size, device: torch.device) -> Interval:
        """Nothing known: ±∞."""
        ends = torch.full(shape, torch.inf, dtype=torch.float64, device=device)
        return cls(-ends, ends)

    @property
    def centre(self) -> Tensor:
        """The middle."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.upper - self.lower) / 2

    @property
    def bounded(self) -> bool:
        """Whether every end is finite."""
        return bool(self.lower.isfinite().all() and self.upper.isfinite().all())

    def __add__(self, other: Interval) -> Interval:
        return Interval.known(self.lower + other.lower, self.upper + other.upper)

    def __sub__(self, other: Interval) -> Interval:
        return Interval.known(self.lower - other.upper, self.upper - other.lower)

    def __mul__(self, other: Interval) -> Interval:
        """All products of a number of each."""
        products = torch.stack(
            [
                self.lower * other.lower,
                self.lower * other.upper,
                self.upper * other.lower,
                self.upper * other.upper,
            ]
        )
        # amin and amax pass NaN on, which then counts as unknown.
        return Interval.known(products.amin(0), products.amax(0))

    def shifted(self, by: Tensor) -> Interval:
        """Plus a known number."""
        return Interval.known(self.lower + by, self.upper + by)

    def scaled(self, by: Tensor) -> Interval:
        """Times a known number."""
        ends = self.lower * by, self.upper * by
        return Interval.known(torch.minimum(*ends), torch.maximum(*ends))

    def mapped(self, increasing: Callable[[Tensor], Tensor]) -> Interval:
        """The image under a function that never decreases in any entry."""
        return Interval.known(increasing(self.lower), increasing(self.upper))

    def meet(self, other: Interval) -> Interval:
        """What lies in both, which must share the true value."""
        lower = torch.maximum(self.lower, other.lower)
        upper = torch.minimum(self.upper, other.upper)
        # Ends that rounding has pushed past each other: the truth is between.
        return Interval(torch.minimum(lower, upper), torch.maximum(lower, upper))

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(
            torch.minimum(self.lower, other.lower), torch.maximum(self.upper, other.upper)
        )

    def widened(self) -> Interval:
        """A margin for the rounding of a sum of these."""
        margin = ROUNDING * torch.maximum(self.lower.abs(), self.upper.abs())
        return Interval(self.lower - margin, self.upper + margin)

    def through(self, linear: Linear, weight: Tensor) -> Interval:
        """Weighted sums of independent entries: centre·W ± radius·|W|."""
        centre = self.centre
        radius = self.radius + ROUNDING * (centre.abs() + self.radius)
        middle, reach = linear(centre, weight), linear(radius, weight.abs())
        return Interval.known(middle - reach, middle + reach)
