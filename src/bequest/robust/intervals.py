"""Interval arithmetic: sets of numbers that are known by their ends.

Everything is float64. Every operation moves its ends outward by more than its own rounding, so that
the interval holds the exact result: of a single operation by :data:`STEP`, relative to what goes
into it, which matters where two nearly equal numbers are subtracted and little is left; of a sum in
proportion to the number of its terms; of a library's functions by :data:`ROUNDING`. An end that
can't be computed (NaN, as from 0·∞) becomes infinite, and one that overflows inward the largest
finite number: nothing is claimed that isn't known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 1e-15
"""Outward margin of one operation, relative to its operands: nine times the rounding of float64.
Known numbers may thus have been rounded a few times themselves, as the weights of a folded batch
norm have."""

ROUNDING = 1e-12
"""Outward margin of an elementary function, relative to its result."""

TINY = 1e-300
"""Outward margin where a result may have vanished: below the smallest float64 numbers."""

LARGEST = torch.finfo(torch.float64).max

Linear = Callable[[Tensor, Tensor], Tensor]
"""(x, weight) → a tensor that is linear in x and in the weight, each entry a sum of products."""


@dataclass(frozen=True)
class Interval:
    """All numbers from ``lower`` to ``upper``, entry by entry; both tensors have one shape."""

    lower: Tensor
    upper: Tensor

    @classmethod
    def known(cls, lower: Tensor, upper: Tensor) -> Interval:
        """The interval with these ends; NaN becomes infinite, overflow the largest number."""
        return cls(
            torch.nan_to_num(lower, nan=-torch.inf, posinf=LARGEST, neginf=-torch.inf),
            torch.nan_to_num(upper, nan=torch.inf, posinf=torch.inf, neginf=-LARGEST),
        )

    @classmethod
    def around(cls, values: Tensor, margin: Tensor) -> Interval:
        """All numbers within a margin of these."""
        return cls.known(values - margin, values + margin)

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
        return _stepped(
            self.lower + other.lower,
            self.upper + other.upper,
            self.lower.abs() + other.lower.abs(),
            self.upper.abs() + other.upper.abs(),
        )

    def __sub__(self, other: Interval) -> Interval:
        return self + Interval(-other.upper, -other.lower)

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
        lower, upper = products.amin(0), products.amax(0)
        return _stepped(lower, upper, lower.abs(), upper.abs())

    def shifted(self, by: Tensor) -> Interval:
        """Plus a known number."""
        return self + Interval(by, by)

    def scaled(self, by: Tensor) -> Interval:
        """Times a known number."""
        ends = self.lower * by, self.upper * by
        lower, upper = torch.minimum(*ends), torch.maximum(*ends)
        return _stepped(lower, upper, lower.abs(), upper.abs())

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

    def widened(self, margin: float | Tensor = 0.0) -> Interval:
        """A margin for the rounding of an elementary function, and one of the caller's."""
        lower = self.lower - (ROUNDING * self.lower.abs() + TINY + margin)
        return Interval.known(lower, self.upper + (ROUNDING * self.upper.abs() + TINY + margin))

    def within(self, lowest: float, highest: float) -> Interval:
        """Cut to what the function that was applied can take."""
        return Interval(self.lower.clamp(lowest, highest), self.upper.clamp(lowest, highest))

    @property
    def magnitude(self) -> Tensor:
        """The largest |x|."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def through(self, linear: Linear, weight: Tensor) -> Interval:
        """Weighted sums of independent entries: centre·W ± radius·|W|."""
        centre, terms = self.centre, weight.numel() / max(1, min(weight.shape[:2]))
        radius = self.radius + summing(terms) * (centre.abs() + self.radius)
        middle, reach = linear(centre, weight), linear(radius, weight.abs()) + TINY
        return Interval.known(middle - reach, middle + reach)


def summing(terms: float) -> float:
    """Outward margin of a sum of products, relative to the sum of their magnitudes.

    A float64 sum of n terms errs by less than n·1.2e-16 of that, in whatever order it is taken.
    Four times as much leaves room for the rounding of the margin, and :data:`STEP` for that of the
    factors.
    """
    return STEP + terms * 2 * torch.finfo(torch.float64).eps


def _stepped(lower: Tensor, upper: Tensor, below: Tensor, above: Tensor) -> Interval:
    """The ends moved outward by one operation on numbers of these magnitudes."""
    return Interval.known(lower - (STEP * below + TINY), upper + (STEP * above + TINY))
