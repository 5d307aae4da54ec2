"""Random shapes with power-law sizes: where they are, and how much of each place they cover."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import ceil, gamma, pi, prod

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, spread

COVER = 3
"""Volume of all shapes, in volumes of the image of any size; some lies beyond its borders."""

FLATTEST = 0.4
"""The least that a shape is as long across as along its axis."""

EDGE = 0.5, 2.5
"""Pixels that the sharpest and the softest edge are wide."""

SMALLEST, RATIO = 1.5, 512
"""The smallest radius in pixels; more where the largest would be more than so many times that."""


class Shapes:
    """Ellipses and boxes, one in each of some images after the other, hindmost first.

    They are stretched, turned in the plane of the first two axes, and have soft edges.

    Args:
        space: the images' sides.
        radius: in pixels, (shapes, count).
        middle: (shapes, count, D).
        form: what each is turned by, how it is stretched, whether it is a box, and how its edge is
            blurred, (shapes, count, 4) in [0, 1).

    Attributes:
        windows: of each index, the places that the images' shapes lie within.
    """

    def __init__(self, space: Sequence[int], radius: Tensor, middle: Tensor, form: Tensor) -> None:
        turned, stretched, box, blurred = spread(form, space).unbind(2)
        length = spread(radius, space)
        across = length * (FLATTEST + (1 - FLATTEST) * stretched)
        cos, sin = (pi * turned).cos(), (pi * turned).sin()
        plane = [{0: cos / length, 1: -sin / length}, {0: sin / across, 1: cos / across}]
        others = [{axis: 1 / across} for axis in range(2, len(space))]
        self._axes: list[dict[int, Tensor]] = [*plane, *others] if space[1:] else [{0: 1 / length}]
        self._box = box < 0.5
        sharpest, softest = EDGE
        self._sharpness = length / (sharpest + (softest - sharpest) * blurred)
        self._middle = spread(middle, space).unbind(2)
        places = [torch.arange(side, **CPU) + 0.5 for side in space]
        self._places = [spread(line, space[1 + axis :]) for axis, line in enumerate(places)]
        reach = 2**0.5 * (radius + softest / 2)[..., None]  # as far as a box that is turned
        low = (middle - reach).amin(1).floor().clamp(min=0).long()
        high = (middle + reach).amax(1).ceil().minimum(torch.tensor(space, **CPU)).long()
        ends = zip(low.tolist(), high.tolist(), strict=True)
        self.windows = [tuple(map(slice, *each)) for each in ends]

    @classmethod
    def drawn(cls, count: int, space: Sequence[int], generator: torch.Generator) -> Shapes:
        """At random, of which the first hides all of the image behind it."""
        radius = _radii(count, space, generator)
        middle, form = (
            torch.rand(*radius.shape, size, generator=generator, **CPU) for size in (len(space), 4)
        )
        return cls(space, radius, middle * torch.tensor(space, **CPU), form)

    def __len__(self) -> int:
        return len(self.windows)

    def cover(self, index: int) -> tuple[Tensor, Tensor]:
        """How far each place of a window is along its shape, in radii, and how much is covered.

        Both are new and (count, *window).
        """
        steps = [
            places[part] - middle[index]
            for part, places, middle in zip(
                self.windows[index], self._places, self._middle, strict=True
            )
        ]
        away = [
            reduce(torch.add, [factor[index] * steps[axis] for axis, factor in terms.items()])
            for terms in self._axes
        ]
        squares = [each.square() for each in away]
        rounded, boxed = reduce(torch.add, squares), reduce(torch.maximum, squares)
        distance = torch.where(self._box[index], boxed, rounded).sqrt_()
        sharpness = self._sharpness[index]
        within = torch.addcmul(sharpness + 0.5, sharpness, distance, value=-1)
        return away[0], within.clamp_(0, 1)


def _radii(count: int, space: Sequence[int], generator: torch.Generator) -> Tensor:
    """In pixels, (shapes, count), each image's in a random order; the first hides all behind it.

    They are stratified: of as many equal parts of the distribution as there are shapes one is from
    each, so that images differ in the order of sizes and not in how many shapes are large.
    """
    largest = max(2.0, max(space) / 2)
    smallest = max(SMALLEST, largest / RATIO)

    def radii(shares: Tensor) -> Tensor:
        return 1 / (1 / smallest + shares * (1 / largest - 1 / smallest))

    ways = len(space)
    ball = pi ** (ways / 2) / gamma(ways / 2 + 1)
    across = (1 - FLATTEST**ways) / (1 - FLATTEST) / ways  # mean of the product of all widths
    side = ((ball + 2**ways) / 2 * across) ** (1 / ways)  # of a cube as large on average
    sides = side * radii((torch.arange(1000, **CPU) + 0.5) / 1000)
    volume = torch.stack([sides.clamp(max=length) for length in space]).prod(0).mean()
    number = ceil(COVER * prod(space) / float(volume))
    order, within = torch.rand(2, number, count, generator=generator, **CPU)
    shares = (order.argsort(0) + within) / number
    return torch.cat([torch.full((1, count), 4.0 * ways**0.5 * max(space), **CPU), radii(shares)])
