"""Dead leaves: random shapes with power-law sizes, one over the other, each with a surface.

Natural images have a power spectrum near 1/f² and are made of things that hide each other; dead
leaves have both, and edges (Lee, Mumford & Huang, "Occlusion models for natural images", 2001).
With textures they are among the best that can be drawn to learn to see from (Baradad et al.,
"Learning to see by looking at noise", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, gamma, pi, prod

import torch
from torch import Tensor

from bequest.calibration.inputs.images import CPU, Range, coloured, normalised
from bequest.calibration.inputs.noise import white_noise
from bequest.calibration.inputs.textures import textures

COVER = 3
"""Volume of all shapes, in volumes of the image, whatever its size."""

SMALLEST, RATIO = 1.5, 512
"""The smallest radius in pixels; more where the largest would be more than so many times that."""

SURFACES, FEWEST = 96, 8
"""Textures that there are: as many as images, within these. Each shape shows a random place of one
of them, in one more colour of its own or in all channels alike."""

TOGETHER, PARTS = 8, 64
"""Images that are drawn at once, which have shapes of the same sizes in the same order: so many, or
more where that would take more parts than this."""


def dead_leaves(
    count: int, shape: tuple[int, ...], generator: torch.Generator, value_range: Range = None
) -> Tensor:
    """Random ellipses and boxes, each hiding those before it, as things in a scene do.

    They are stretched at random and turned in the plane of the first two axes; their edges are
    soft, their faces shaded and textured, and the colours of an image gather around its own. Behind
    them is one face without edges. Radii follow the power law p(r) ∝ r⁻² (Lee, Mumford & Huang have
    r⁻³ before occlusion: with so few pixels the larger shapes come nearer to what batch norms have
    stored).
    """
    _, *space = shape
    if not space:
        return white_noise(count, shape, generator, value_range)
    surfaces = textures(min(SURFACES, max(FEWEST, count)), space, generator).flatten(1)
    images = torch.zeros(count, *shape, **CPU)
    for scenes in torch.split(images, max(TOGETHER, -(-count // PARTS))):
        _draw(scenes, surfaces, generator)
    return normalised(images, value_range)


def _draw(images: Tensor, surfaces: Tensor, generator: torch.Generator) -> None:
    """Draws some of the images, (count, C, *space), each of a contrast of its own."""
    count, channels, *space = images.shape
    pixels = images.view(count, channels, -1)
    sides = torch.tensor(space, **CPU)[:, None]

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, count, generator=generator, **CPU)

    def colours() -> Tensor:
        return 0.7 * coloured(torch.randn(count, channels, generator=generator, **CPU))

    theme = colours()
    for radius in _radii(space, generator):
        leaf = _Leaf(space, radius, uniform(len(space)) * sides, uniform(4))
        surface = (uniform() * len(surfaces)).long()[:, None]
        grain = surfaces[surface, leaf.places((uniform(len(space)) * sides).long())]
        slope, contrast, tinted = uniform(3)[:, :, None]
        tint = torch.where(tinted < 0.5, theme + colours(), 1.0)
        shade = (slope - 0.5) * leaf.away[0].clamp(-2, 2)
        face = (theme + colours())[:, :, None] + shade[:, None]
        face = face + (0.7 * contrast.square() * tint)[:, :, None] * grain[:, None]
        where = leaf.places()[:, None].expand(-1, channels, -1)
        below = pixels.gather(2, where)
        pixels.scatter_(2, where, torch.lerp(below, face, leaf.covered[:, None]))
    mean = pixels.mean(2, keepdim=True)
    spread = torch.exp(2 * uniform() - 1)[:, None, None]
    pixels.copy_(mean + spread * (pixels - mean))


def _radii(space: Sequence[int], generator: torch.Generator) -> list[float]:
    """In pixels, in random order; the first shape hides all of the image behind it.

    They are stratified: of as many equal parts of the distribution as there are shapes one is from
    each, so that images differ in the order of sizes and not in how many shapes are large.
    """
    largest = max(2.0, max(space) / 2)
    smallest = max(SMALLEST, largest / RATIO)

    def radii(shares: Tensor) -> Tensor:
        return 1 / (1 / smallest + shares * (1 / largest - 1 / smallest))

    ways = len(space)
    ball = pi ** (ways / 2) / gamma(ways / 2 + 1)
    side = ((ball + 2**ways) / 2 * 0.7 ** (ways - 1)) ** (1 / ways)  # of a cube as large on average
    sides = side * radii((torch.arange(1000, **CPU) + 0.5) / 1000)
    volume = torch.stack([sides.clamp(max=length) for length in space]).prod(0).mean()
    count = ceil(COVER * prod(space) / float(volume))
    order = torch.randperm(count, generator=generator, device="cpu")
    shares = (order + torch.rand(count, generator=generator, **CPU)) / count
    return [5.0 * max(space), *radii(shares).tolist()]


class _Leaf:
    """A shape in each of some images, all of one radius.

    Args:
        space: the images' sides.
        radius: in pixels.
        middle: of each shape, (D, count).
        form: what each is turned by, how it is stretched, whether it is a box, and how its edge is
            blurred, (4, count) in [0, 1).

    Attributes:
        away: how far each place of its window is from its middle, along its axes and in radii of
            these, (D, count, places).
        covered: how much of each place it covers, (count, places).
    """

    def __init__(self, space: Sequence[int], radius: float, middle: Tensor, form: Tensor) -> None:
        self._space = space
        turned, stretched, box, blurred = form[:, :, None]
        blur = 0.5 + 2 * blurred  # pixels
        reach = 2**0.5 * (radius + 1.25)  # of a box that is turned, and half of the largest blur
        self._axes = [
            _window(axis - reach, min(side, ceil(2 * reach) + 1), side)
            for axis, side in zip(middle, space, strict=True)
        ]
        pairs = zip(self._axes, middle[:, :, None], strict=True)
        away = _grid([axis.to(middle) + 0.5 - start for axis, start in pairs])
        if len(space) > 1:
            cos, sin = (torch.pi * turned).cos(), (torch.pi * turned).sin()
            away[:2] = torch.stack([cos * away[0] - sin * away[1], sin * away[0] + cos * away[1]])
        away[0] /= radius
        away[1:] /= radius * (0.4 + 0.6 * stretched)
        distance = torch.where(box < 0.5, away.abs().amax(0), away.norm(dim=0))
        self.away = away
        self.covered = ((1 - distance) * radius / blur + 0.5).clamp(0, 1)

    def places(self, shift: Tensor | None = None) -> Tensor:
        """Indices of its window in a flat image, or in a periodic one, (D, count) pixels on."""
        axes = self._axes
        if shift is not None:
            moves = zip(axes, shift, self._space, strict=True)
            axes = [(axis + move[:, None]) % side for axis, move, side in moves]
        flat, *others = axes
        for axis, side in zip(others, self._space[1:], strict=True):
            flat = (flat[:, :, None] * side + axis[:, None]).flatten(1)
        return flat


def _window(low: Tensor, width: int, side: int) -> Tensor:
    """So many places from the lowest on, (count,) → (count, width), within the image."""
    return low.floor().clamp(0, side - width).long()[:, None] + torch.arange(width, device="cpu")


def _grid(axes: Sequence[Tensor]) -> Tensor:
    """Coordinates along each axis, (count, width) → those of every place, (D, count, places)."""
    count, widths = len(axes[0]), [axis.shape[1] for axis in axes]
    found = []
    for d, axis in enumerate(axes):
        shape = [width if other == d else 1 for other, width in enumerate(widths)]
        found.append(axis.view(count, *shape).expand(count, *widths).flatten(1))
    return torch.stack(found)
